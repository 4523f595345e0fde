/* A legacy MCP server that adds two numbers; it reads of JSON what it must. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADD \
    "{\"name\":\"add\",\"description\":\"Add two whole numbers\",\"inputSchema\":{\"type\":\"object\"," \
    "\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}}}}"

/* The text after `"name":` and any space; NULL if there is none. */
static const char *after(const char *line, const char *name)
{
    char key[32];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *found = strstr(line, key);
    return found ? found + strlen(key) + strspn(found + strlen(key), " ") : NULL;
}

static int is(const char *method, const char *name)
{
    size_t length = strlen(name);
    return !strncmp(method, name, length) && method[length] == '"';
}

int main(void)
{
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        const char *id = after(line, "id"), *method = after(line, "method");
        if (!id || !method)
            continue;
        size_t length = *id == '"' ? strcspn(id + 1, "\"") + 2 : strspn(id, "0123456789");
        printf("{\"jsonrpc\":\"2.0\",\"id\":%.*s,", (int)length, id);
        method++;
        if (is(method, "initialize"))
            printf("\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},"
                   "\"serverInfo\":{\"name\":\"adder\",\"version\":\"1\"}}}\n");
        else if (is(method, "ping"))
            printf("\"result\":{}}\n");
        else if (is(method, "tools/list"))
            printf("\"result\":{\"tools\":[" ADD "]}}\n");
        else if (is(method, "tools/call"))
            printf("\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"%ld\"}]}}\n",
                   atol(after(line, "a")) + atol(after(line, "b")));
        else
            printf("\"error\":{\"code\":-32601,\"message\":\"Method not found\"}}\n");
        fflush(stdout);
    }
    return 0;
}
