/* pipe SECONDS DEPTH COMMAND...: what a stdio server can do with nothing in between.
 *
 * Drives the child over its own pipes with DEPTH calls outstanding: 1 is the plain ping-pong, more is pipelining, where
 * all that can be sent goes out in one write. Answers must come in order, each with its call's text. Prints one line
 * of JSON, as `calls` does. */
#include "common.h"

#include <poll.h>
#include <sys/wait.h>

#define STALL_MS 10000

static int to_child, from_child;
static struct bytes in, out;

static pid_t start(char **command)
{
    int down[2], up[2];
    if (pipe2(down, O_CLOEXEC) || pipe2(up, O_CLOEXEC))
        give_up("no pipes");
    pid_t pid = fork();
    if (pid == 0) {
        dup2(down[0], 0);
        dup2(up[1], 1);
        execvp(command[0], command);
        _exit(127);
    }
    close(down[0]);
    close(up[1]);
    to_child = down[1];
    from_child = up[0];
    return pid;
}

static void flush_out(void)
{
    for (size_t at = 0; at < out.len;) {
        ssize_t sent = write(to_child, out.at + at, out.len - at);
        if (sent < 0 && errno != EINTR)
            give_up("the child does not read: %s", strerror(errno));
        at += sent > 0 ? (size_t)sent : 0;
    }
    out.len = 0;
}

static void read_more(void)
{
    struct pollfd p = {.fd = from_child, .events = POLLIN};
    if (poll(&p, 1, STALL_MS) <= 0)
        give_up("the child answers no more");
    make_room(&in, 1 << 18);
    ssize_t got = read(from_child, in.at + in.len, 1 << 18);
    if (got <= 0)
        give_up("the child has ended");
    in.len += (size_t)got;
}

static void shake_hands(void)
{
    static const char hello[] =
        "{\"jsonrpc\":\"2.0\",\"id\":\"hello\",\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-06-18\","
        "\"capabilities\":{},\"clientInfo\":{\"name\":\"bench\",\"version\":\"1\"}}}\n";
    static const char thanks[] = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n";
    append(&out, hello, sizeof hello - 1);
    flush_out();
    while (!memchr(in.at, '\n', in.len))
        read_more();
    in.len = 0;
    append(&out, thanks, sizeof thanks - 1);
}

static void put_call(uint64_t serial)
{
    char line[256];
    int len = snprintf(line, sizeof line,
                       "{\"jsonrpc\":\"2.0\",\"id\":%llu,\"method\":\"tools/call\",\"params\":{\"name\":\"echo\","
                       "\"arguments\":{\"text\":\"t%015llx\"}}}\n",
                       (unsigned long long)serial, (unsigned long long)serial);
    append(&out, line, (size_t)len);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        give_up("usage: pipe SECONDS DEPTH COMMAND...");
    uint64_t span = (uint64_t)(atof(argv[1]) * 1e9), sent = 0, answered = 0, depth = strtoull(argv[2], NULL, 10);
    uint64_t *sent_at = calloc(depth, sizeof *sent_at);
    struct latencies latencies = {0};
    signal(SIGPIPE, SIG_IGN);
    pid_t pid = start(argv + 3);
    make_room(&in, 1 << 18);
    shake_hands();
    ready_and_wait();
    double cpu = cpu_s(RUSAGE_SELF);
    uint64_t begin = now_ns(), now = begin;
    while (now < begin + span) {
        for (; sent - answered < depth; sent++) {
            sent_at[sent % depth] = now;
            put_call(sent);
        }
        flush_out();
        read_more();
        now = now_ns();
        size_t used = 0;
        for (char *end; (end = memchr(in.at + used, '\n', in.len - used)); answered++) {
            char text[MARK_LEN + 1];
            snprintf(text, sizeof text, "t%015llx", (unsigned long long)answered);
            if (!memmem(in.at + used, (size_t)(end - in.at) - used, text, MARK_LEN))
                give_up("a wrong answer: %.*s", (int)((size_t)(end - in.at) - used), in.at + used);
            note_latency(&latencies, now - sent_at[answered % depth]);
            used = (size_t)(end - in.at) + 1;
        }
        drop_front(&in, used);
    }
    cpu = cpu_s(RUSAGE_SELF) - cpu;
    sort_latencies(&latencies);
    close(to_child);
    close(from_child);
    waitpid(pid, NULL, 0);
    printf("{\"calls\":%llu,\"errors\":0,\"reconnects\":0,\"seconds\":%.6f,\"p50_ms\":%.4f,\"p99_ms\":%.4f,\"cpu_s\":%.4f}\n",
           (unsigned long long)answered, (double)(now - begin) / 1e9, quantile_ms(&latencies, .5),
           quantile_ms(&latencies, .99), cpu + cpu_s(RUSAGE_CHILDREN));
    return 0;
}
