import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.header.Header;

/** A consuming team in Java, with a stock deserialiser. Arguments: brokers, topic, group, registry, count, seconds. Takes that many
 *  different events and prints each as a line of JSON; fails when they have not come in time. */
public class ReadAvro {
    private final Set<String> taken = new HashSet<>();
    private final ObjectMapper json = new ObjectMapper();
    private final int wanted;
    private final long deadline;

    private ReadAvro(int wanted, long seconds) {
        this.wanted = wanted;
        this.deadline = System.nanoTime() + Duration.ofSeconds(seconds).toNanos();
    }

    public static void main(String[] arguments) throws Exception {
        ReadAvro reader = new ReadAvro(Integer.parseInt(arguments[4]), Long.parseLong(arguments[5]));
        reader.read(arguments[0], arguments[1], arguments[2], arguments[3]);
        if (reader.taken.size() < reader.wanted) {
            System.err.println("took " + reader.taken.size() + " of " + reader.wanted + " events");
            System.exit(1);
        }
    }

    private void read(String brokers, String topic, String group, String registry) throws Exception {
        // As in avro/CONTRACT.md.
        Properties settings = new Properties();
        settings.put("bootstrap.servers", brokers);
        settings.put("group.id", group);
        settings.put("auto.offset.reset", "earliest");
        settings.put("isolation.level", "read_committed");
        settings.put("enable.auto.commit", "false");
        settings.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        settings.put("value.deserializer", "io.apicurio.registry.serde.avro.AvroKafkaDeserializer");
        settings.put("apicurio.registry.url", registry);
        try (KafkaConsumer<String, GenericRecord> consumer = new KafkaConsumer<>(settings)) {
            consumer.subscribe(List.of(topic));
            while (more()) {
                for (ConsumerRecord<String, GenericRecord> record : consumer.poll(Duration.ofMillis(200))) {
                    GenericRecord event = record.value();
                    if (taken.add(event.get("event_id").toString())) {
                        handle(record, event);
                    }
                }
                consumer.commitSync();
            }
        }
    }

    private boolean more() {
        return taken.size() < wanted && System.nanoTime() < deadline;
    }

    private void handle(ConsumerRecord<String, GenericRecord> record, GenericRecord event) throws Exception {
        Map<String, Object> value = new LinkedHashMap<>();
        for (Schema.Field field : event.getSchema().getFields()) {
            Object found = event.get(field.pos());
            value.put(field.name(), found instanceof Number || found instanceof Boolean ? found
                : found == null ? null : found.toString());
        }
        Map<String, String> headers = new LinkedHashMap<>();
        for (Header header : record.headers()) {
            headers.put(header.key(), new String(header.value(), StandardCharsets.UTF_8));
        }
        System.out.println(json.writeValueAsString(Map.of("key", record.key(), "headers", headers, "value", value)));
    }
}
