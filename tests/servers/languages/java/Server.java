import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** A legacy MCP server that adds two numbers; it reads of JSON what it must. */
public class Server {
    private static final Pattern ID = Pattern.compile("\"id\":\\s*(\\d+|\"[^\"]*\")");
    private static final Pattern METHOD = Pattern.compile("\"method\":\\s*\"([^\"]*)\"");
    private static final String ADD =
        "{\"name\":\"add\",\"description\":\"Add two whole numbers\",\"inputSchema\":{\"type\":\"object\","
            + "\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}}}}";

    public static void main(String[] args) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            String id = first(ID, line);
            String method = first(METHOD, line);
            if (id != null && method != null) {
                System.out.println("{\"jsonrpc\":\"2.0\",\"id\":" + id + "," + outcome(method, line) + "}");
                System.out.flush();
            }
        }
    }

    private static String outcome(String method, String line) {
        switch (method) {
            case "initialize":
                return "\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},"
                    + "\"serverInfo\":{\"name\":\"adder\",\"version\":\"" + System.getProperty("java.version") + "\"}}";
            case "ping":
                return "\"result\":{}";
            case "tools/list":
                return "\"result\":{\"tools\":[" + ADD + "]}";
            case "tools/call":
                long sum = number("a", line) + number("b", line);
                return "\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"" + sum + "\"}]}";
            default:
                return "\"error\":{\"code\":-32601,\"message\":\"Method not found\"}";
        }
    }

    private static long number(String name, String line) {
        return Long.parseLong(first(Pattern.compile("\"" + name + "\":\\s*(-?\\d+)"), line));
    }

    private static String first(Pattern pattern, String line) {
        Matcher found = pattern.matcher(line);
        return found.find() ? found.group(1) : null;
    }
}
