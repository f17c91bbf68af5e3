import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.data.Values;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.header.Header;
import org.apache.kafka.connect.sink.SinkConnector;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.sink.SinkTask;

/** A sink that says what a connector is handed: a line of JSON for each record, with schema, Java class and text of its key, its value,
 *  each field of that and each header. Like the stock file sink it takes the setting {@code file}. */
public class TypedSink extends SinkConnector {
    private Map<String, String> settings;

    @Override
    public void start(Map<String, String> given) {
        settings = given;
    }

    @Override
    public Class<? extends Task> taskClass() {
        return Writer.class;
    }

    @Override
    public List<Map<String, String>> taskConfigs(int most) {
        return List.of(settings);
    }

    @Override
    public void stop() {
    }

    @Override
    public ConfigDef config() {
        return new ConfigDef().define("file", ConfigDef.Type.STRING, ConfigDef.Importance.HIGH, "Where to write.");
    }

    @Override
    public String version() {
        return "1";
    }

    /** Appends to the file. */
    public static class Writer extends SinkTask {
        private final ObjectMapper json = new ObjectMapper();
        private Path file;

        @Override
        public void start(Map<String, String> settings) {
            file = Path.of(settings.get("file"));
        }

        @Override
        public void put(Collection<SinkRecord> records) {
            StringBuilder lines = new StringBuilder();
            try {
                for (SinkRecord record : records) {
                    lines.append(json.writeValueAsString(described(record))).append('\n');
                }
                Files.writeString(file, lines, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
            } catch (IOException error) {
                throw new ConnectException(error);
            }
        }

        @Override
        public void stop() {
        }

        @Override
        public String version() {
            return "1";
        }

        private static Map<String, Object> described(SinkRecord record) {
            Map<String, Object> fields = new LinkedHashMap<>();
            fields.put("key", described(record.keySchema(), record.key()));
            fields.put("value", described(record.valueSchema(), record.value()));
            if (record.value() instanceof Struct value) {
                Map<String, Object> members = new LinkedHashMap<>();
                value.schema().fields().forEach(
                    each -> members.put(each.name(), described(each.schema(), value.get(each))));
                fields.put("fields", members);
            }
            List<List<Object>> headers = new ArrayList<>();
            for (Header header : record.headers()) {
                headers.add(Arrays.asList(header.key(), described(header.schema(), header.value())));
            }
            fields.put("headers", headers);
            return fields;
        }

        /** The name or type of Connect's schema where there is one, the class, and the text that Connect itself would write. */
        private static List<String> described(Schema schema, Object value) {
            String type = schema == null ? null : schema.name() == null ? schema.type().toString() : schema.name();
            String name = value == null ? null : value.getClass().getSimpleName();
            return Arrays.asList(type, name, Values.convertToString(schema, value));
        }
    }
}
