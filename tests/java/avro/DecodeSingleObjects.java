import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.message.BinaryMessageDecoder;

/** Avro's own decoder of single-object encoding. Arguments: files of schemas, the reader's first. Reads values in hexadecimal, one a
 *  line, and prints each as a line of JSON. */
public class DecodeSingleObjects {
    public static void main(String[] files) throws Exception {
        Schema readers = new Schema.Parser().parse(new File(files[0]));
        BinaryMessageDecoder<GenericRecord> decoder = new BinaryMessageDecoder<>(new GenericData(), readers);
        for (String file : files) {
            decoder.addSchema(new Schema.Parser().parse(new File(file)));
        }
        ObjectMapper json = new ObjectMapper();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            GenericRecord event = decoder.decode(HexFormat.of().parseHex(line));
            Map<String, Object> value = new LinkedHashMap<>();
            for (Schema.Field field : readers.getFields()) {
                Object found = event.get(field.pos());
                value.put(field.name(), found instanceof Number || found instanceof Boolean ? found
                    : found == null ? null : found.toString());
            }
            System.out.println(json.writeValueAsString(value));
        }
    }
}
