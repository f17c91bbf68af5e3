import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Arguments: bootstrap servers, topic, count, seconds. Reads that many records of the topic from its beginning with the
 *  plain Java client and prints each as a line of JSON; fails when they have not come in time. */
public class ReadRecords {
    public static void main(String[] arguments) throws Exception {
        int wanted = Integer.parseInt(arguments[2]);
        long deadline = System.nanoTime() + Duration.ofSeconds(Long.parseLong(arguments[3])).toNanos();
        Map<String, Object> settings = Map.of("bootstrap.servers", arguments[0]);
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        ObjectMapper json = new ObjectMapper();
        int read = 0;
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, bytes, bytes)) {
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(arguments[1]).forEach(
                each -> partitions.add(new TopicPartition(each.topic(), each.partition())));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            while (read < wanted && System.nanoTime() < deadline) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    System.out.println(json.writeValueAsString(fields(record)));
                    read++;
                }
            }
        }
        if (read < wanted) {
            System.err.println("read " + read + " of " + wanted + " records");
            System.exit(1);
        }
    }

    private static Map<String, Object> fields(ConsumerRecord<byte[], byte[]> record) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("topic", record.topic());
        fields.put("partition", record.partition());
        fields.put("offset", record.offset());
        fields.put("timestamp", record.timestamp());
        fields.put("key", text(record.key()));
        fields.put("value", text(record.value()));
        List<List<String>> headers = new ArrayList<>();
        for (Header header : record.headers()) {
            List<String> pair = new ArrayList<>();
            pair.add(header.key());
            pair.add(text(header.value()));
            headers.add(pair);
        }
        fields.put("headers", headers);
        return fields;
    }

    private static String text(byte[] content) {
        return content == null ? null : new String(content, StandardCharsets.UTF_8);
    }
}
