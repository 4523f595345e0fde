/* echo: the smallest MCP server over stdio that is still one; about a microsecond per call, so that it is never what
 * the benchmark measures.
 *
 * Tools: `echo {text}` gives the text back; `burst {n}` writes n notifications at once, each with its number and the
 * time it was written at (CLOCK_MONOTONIC, ns), and then answers. All the lines of one read are answered in one write.
 * With the argument `modern` it is a server of MCP 2026-07-28, which takes no handshake. */
#include "common.h"

struct span { const char *at; size_t len; };

static struct bytes out;
static int is_modern;

static void flush_out(void)
{
    for (size_t at = 0; at < out.len;) {
        ssize_t sent = write(1, out.at + at, out.len - at);
        if (sent < 0 && errno != EINTR)
            exit(0);
        at += sent > 0 ? (size_t)sent : 0;
    }
    out.len = 0;
}

static void put(const char *text) { append(&out, text, strlen(text)); }
static void put_span(struct span s) { append(&out, s.at, s.len); }

/* -- as much JSON as it takes -------------------------------------------------------------------------------------- */

static const char *after_space(const char *p, const char *end)
{
    while (p < end && strchr(" \t\r\n", *p))
        p++;
    return p;
}

static const char *after_string(const char *p, const char *end) /* p is at the opening quote */
{
    for (p++; p < end && *p != '"'; p++)
        p += *p == '\\';
    return p < end ? p + 1 : end;
}

static const char *after_value(const char *p, const char *end)
{
    int depth = 0;
    do {
        if (p < end && *p == '"') {
            p = after_string(p, end);
            continue;
        }
        if (depth == 0 && p < end && *p != '{' && *p != '[') { /* a number or a word */
            while (p < end && !strchr(",]} \t\r\n", *p))
                p++;
            return p;
        }
        if (p < end)
            depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
        p++;
    } while (depth > 0 && p < end);
    return p < end ? p : end;
}

/* The value of a member; its `at` is NULL when there is none. */
static struct span member(struct span object, const char *name)
{
    const char *p = object.at, *end = p ? p + object.len : NULL;
    if (!p || *p != '{')
        return (struct span){0};
    for (p = after_space(p + 1, end); p < end && *p == '"'; p = after_space(p + 1, end)) {
        struct span key = {p, (size_t)(after_string(p, end) - p)};
        p = after_space(key.at + key.len, end);
        if (p >= end || *p != ':')
            break;
        p = after_space(p + 1, end);
        struct span value = {p, (size_t)(after_value(p, end) - p)};
        if (key.len == strlen(name) + 2 && !memcmp(key.at + 1, name, key.len - 2))
            return value;
        p = after_space(value.at + value.len, end);
        if (p >= end || *p != ',')
            break;
    }
    return (struct span){0};
}

static int is(struct span value, const char *text)
{
    return value.at && value.len == strlen(text) + 2 && !memcmp(value.at + 1, text, value.len - 2);
}

/* -- answers ------------------------------------------------------------------------------------------------------- */

static void begin(struct span id)
{
    put("{\"jsonrpc\":\"2.0\",\"id\":");
    put_span(id);
}

static void begin_result(struct span id)
{
    begin(id);
    put(is_modern ? ",\"result\":{\"resultType\":\"complete\"," : ",\"result\":{");
}

static void answer_text(struct span id, struct span text)
{
    begin_result(id);
    put("\"content\":[{\"type\":\"text\",\"text\":");
    put_span(text);
    put("}],\"isError\":false}}\n");
}

static void burst(struct span count)
{
    long n = count.at ? strtol(count.at, NULL, 10) : 0;
    for (long i = 1; i <= n; i++) {
        char line[256];
        int len = snprintf(line, sizeof line,
                           "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/resources/updated\",\"params\":"
                           "{\"uri\":\"burst %ld %llu\"}}\n",
                           i, (unsigned long long)now_ns());
        append(&out, line, (size_t)len);
    }
}

static void call(struct span id, struct span params)
{
    struct span name = member(params, "name"), arguments = member(params, "arguments"), text = member(arguments, "text");
    if (is(name, "echo") && text.at && *text.at == '"') {
        answer_text(id, text);
    } else if (is(name, "burst")) {
        burst(member(arguments, "n"));
        answer_text(id, (struct span){"\"done\"", 6});
    } else {
        begin(id);
        put(",\"error\":{\"code\":-32602,\"message\":\"no such tool, or no text\"}}\n");
    }
}

static void initialize(struct span id, struct span params)
{
    struct span version = member(params, "protocolVersion");
    begin_result(id);
    put("\"protocolVersion\":");
    put_span(version.at ? version : (struct span){"\"2025-06-18\"", 12});
    put(",\"capabilities\":{\"tools\":{},\"resources\":{\"subscribe\":true}},\"serverInfo\":{\"name\":\"bench-echo\",\"version\":\"1\"}}}\n");
}

static void on_line(struct span line)
{
    line.at = after_space(line.at, line.at + line.len);
    struct span id = member(line, "id"), method = member(line, "method");
    if (!id.at || !method.at)
        return; /* a notification, or an answer to a question that was never asked */
    if (is(method, "tools/call")) {
        call(id, member(line, "params"));
    } else if (is_modern && is(method, "server/discover")) {
        begin_result(id);
        put("\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{\"tools\":{}},\"ttlMs\":0,\"cacheScope\":\"private\"}}\n");
    } else if (!is_modern && is(method, "initialize")) {
        initialize(id, member(line, "params"));
    } else if (is(method, "tools/list")) {
        begin_result(id);
        put("\"tools\":["
            "{\"name\":\"echo\",\"inputSchema\":{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\"}}}},"
            "{\"name\":\"burst\",\"inputSchema\":{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}}}}]}}\n");
    } else if (is(method, "ping") || is(method, "logging/setLevel")) {
        begin(id);
        put(",\"result\":{}}\n");
    } else {
        begin(id);
        put(",\"error\":{\"code\":-32601,\"message\":\"Method not found\"}}\n");
    }
}

int main(int argc, char **argv)
{
    struct bytes in = {0};
    is_modern = argc == 2 && !strcmp(argv[1], "modern");
    for (;;) {
        make_room(&in, 1 << 16);
        ssize_t got = read(0, in.at + in.len, in.room - in.len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0;
        size_t looked = in.len, used = 0;
        in.len += (size_t)got;
        for (char *end; (end = memchr(in.at + looked, '\n', in.len - looked)); looked = used) {
            char *start = in.at + used;
            on_line((struct span){start, (size_t)(end - start)});
            used = (size_t)(end - in.at) + 1;
        }
        drop_front(&in, used);
        flush_out();
    }
}
