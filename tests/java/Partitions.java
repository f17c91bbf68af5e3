import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.utils.Utils;

/** Reads keys from standard input, a line of hexadecimal digits each, and prints what the Java client makes of them:
 *  the key, its murmur2 (signed), and its partition for each of the partition counts given as arguments. */
public class Partitions {
    public static void main(String[] counts) throws Exception {
        BufferedReader keys = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        StringBuilder out = new StringBuilder();
        for (String line = keys.readLine(); line != null; line = keys.readLine()) {
            byte[] key = HexFormat.of().parseHex(line);
            out.append(line).append(',').append(Utils.murmur2(key));
            for (String count : counts) {
                out.append(',').append(BuiltInPartitioner.partitionForKey(key, Integer.parseInt(count)));
            }
            out.append('\n');
        }
        System.out.print(out);
    }
}
