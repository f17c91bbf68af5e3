import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.message.BinaryMessageDecoder;

/** Avro's own readers on the cases of tests/golden. Arguments: the schema's file, then those of the cases. Prints for each event a line
 *  of JSON: its case, and what its Avro holds, without a frame and in those that the case has. */
public class ReadGolden {
    private static final int CONFLUENT_HEAD_BYTES = 5;

    private final Schema schema;
    private final ObjectMapper json = new ObjectMapper();

    private ReadGolden(Schema schema) {
        this.schema = schema;
    }

    public static void main(String[] files) throws Exception {
        ReadGolden reader = new ReadGolden(new Schema.Parser().parse(new File(files[0])));
        for (int each = 1; each < files.length; each++) {
            reader.read(new File(files[each]));
        }
    }

    private void read(File file) throws Exception {
        for (JsonNode record : json.readTree(file).get("records")) {
            if (record.get("topic").asText().equals("status")) {
                List<Map<String, Object>> values = new ArrayList<>();
                StringBuilder datum = new StringBuilder();
                record.get("avro").forEach(line -> datum.append(line.asText().split("#")[0]));
                values.add(fields(datum(bytes(datum.toString()), 0)));
                if (record.has("framed")) {
                    values.add(fields(datum(bytes(record.get("framed").get("confluent").asText()), CONFLUENT_HEAD_BYTES)));
                    BinaryMessageDecoder<GenericRecord> decoder = new BinaryMessageDecoder<>(new GenericData(), schema);
                    values.add(fields(decoder.decode(bytes(record.get("framed").get("single_object").asText()))));
                }
                System.out.println(json.writeValueAsString(Map.of("case", file.getName(), "values", values)));
            }
        }
    }

    private GenericRecord datum(byte[] value, int from) throws Exception {
        ByteArrayInputStream bytes = new ByteArrayInputStream(value, from, value.length - from);
        BinaryDecoder decoder = DecoderFactory.get().directBinaryDecoder(bytes, null);
        GenericRecord event = new GenericDatumReader<GenericRecord>(schema).read(null, decoder);
        if (bytes.available() > 0) {
            throw new IllegalArgumentException(bytes.available() + " bytes follow the event");
        }
        return event;
    }

    private static byte[] bytes(String hex) {
        return HexFormat.of().parseHex(hex.replace(" ", ""));
    }

    private Map<String, Object> fields(GenericRecord event) {
        Map<String, Object> value = new LinkedHashMap<>();
        for (Schema.Field field : schema.getFields()) {
            Object found = event.get(field.pos());
            value.put(field.name(), found instanceof Number || found instanceof Boolean ? found
                : found == null ? null : found.toString());
        }
        return value;
    }
}
