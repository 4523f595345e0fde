/* fan PORT SUBSCRIBERS EVENTS SUBSCRIBE TRIGGER: one burst of notifications, seen from every subscriber.
 *
 * SUBSCRIBE and TRIGGER are files with one HTTP request each. Every subscriber opens its event stream; then the trigger
 * makes the server emit EVENTS notifications, numbered from 1 and stamped with their time ("burst NUMBER NS"). Ends when
 * every subscriber has all of them, or when nothing came for QUIET_NS. Prints one line of JSON: what was delivered, what
 * was out of order or twice, how many streams were cut, the time from the trigger to the last event of the last
 * subscriber, and how old the events were when they arrived. */
#include "common.h"

#define QUIET_NS (3 * NS_PER_S)
#define OPEN_NS (20 * NS_PER_S)
#define READ_BYTES (1 << 17)

struct subscriber {
    int fd, is_open, is_over, was_cut;
    struct bytes head, line;      /* what is not complete yet */
    enum { SIZE, DATA, END } part; /* of a chunk */
    size_t left, size;
    long next, got;
};

static struct latencies ages;
static long events, delivered, out_of_order, cut;
static uint64_t last_at;
static int epoll;

static void on_line(struct subscriber *s, const char *line, size_t len)
{
    if (len < 6 || memcmp(line, "data:", 5))
        return;
    if (memmem(line, len, "\"type\":\"lagged\"", 15))
        s->was_cut = 1;
    const char *mark = memmem(line, len, "\"burst ", 7);
    if (!mark || !memmem(line, len, "\"type\":\"notification\"", 21))
        return;
    char *digits_end;
    long number = strtol(mark + 7, &digits_end, 10);
    uint64_t stamp = strtoull(digits_end, NULL, 10);
    last_at = now_ns();
    note_latency(&ages, last_at > stamp ? last_at - stamp : 0);
    if (number == s->next)
        s->got++, delivered++;
    else
        out_of_order++;
    s->next = number + 1;
}

static void on_body(struct subscriber *s, const char *data, size_t len)
{
    for (const char *end; (end = memchr(data, '\n', len));) {
        size_t piece = (size_t)(end - data);
        if (s->line.len) {
            append(&s->line, data, piece + 1);
            on_line(s, s->line.at, s->line.len);
            s->line.len = 0;
        } else {
            on_line(s, data, piece + 1);
        }
        data += piece + 1;
        len -= piece + 1;
    }
    append(&s->line, data, len);
}

static void on_chunks(struct subscriber *s, const char *data, size_t len)
{
    while (len) {
        if (s->part == DATA) {
            size_t piece = len < s->left ? len : s->left;
            on_body(s, data, piece);
            data += piece;
            len -= piece;
            s->left -= piece;
            if (!s->left)
                s->part = END;
            continue;
        }
        char c = *data++;
        len--;
        if (c == '\r')
            continue;
        if (s->part == END) { /* the line feed behind a chunk */
            s->part = SIZE;
        } else if (c == '\n') {
            s->is_over |= s->size == 0;
            s->left = s->size;
            s->size = 0;
            s->part = s->left ? DATA : END;
        } else {
            const char *digit = strchr("0123456789abcdef", c | 32);
            if (!digit)
                give_up("a malformed chunk");
            s->size = s->size * 16 + (size_t)(digit - "0123456789abcdef");
        }
    }
}

static void on_head(struct subscriber *s, const char *data, size_t len)
{
    append(&s->head, data, len);
    const char *end = memmem(s->head.at, s->head.len, "\r\n\r\n", 4);
    if (!end)
        return;
    size_t head_len = (size_t)(end - s->head.at) + 4;
    const char *coding = field(s->head.at, head_len, "transfer-encoding");
    if (memcmp(s->head.at, "HTTP/1.1 200", 12) || !coding || strncasecmp(coding, "chunked", 7))
        give_up("no stream: %.*s", (int)s->head.len, s->head.at);
    s->is_open = 1;
    on_chunks(s, s->head.at + head_len, s->head.len - head_len);
}

static void take(struct subscriber *s)
{
    static char data[READ_BYTES];
    ssize_t got = recv(s->fd, data, sizeof data, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0)
        s->is_over = 1;
    else if (s->is_open)
        on_chunks(s, data, (size_t)got);
    else
        on_head(s, data, (size_t)got);
    if (s->is_over)
        epoll_ctl(epoll, EPOLL_CTL_DEL, s->fd, NULL);
}

/* Read whatever comes for at most 50 ms. */
static void turn(void)
{
    struct epoll_event found[256];
    int n = epoll_wait(epoll, found, 256, 50);
    for (int i = 0; i < n; i++)
        if (found[i].data.ptr)
            take(found[i].data.ptr);
}

static int count_if_open(struct subscriber *all, int count)
{
    int open = 0;
    for (int i = 0; i < count; i++)
        open += all[i].is_open;
    return open;
}

static int is_done(struct subscriber *all, int count)
{
    for (int i = 0; i < count; i++)
        if (!all[i].is_over && all[i].got < events)
            return 0;
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        give_up("usage: fan PORT SUBSCRIBERS EVENTS SUBSCRIBE TRIGGER");
    int port = atoi(argv[1]), count = atoi(argv[2]);
    events = atol(argv[3]);
    struct bytes subscribe = read_file(argv[4]), trigger = read_file(argv[5]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct subscriber *all = calloc((size_t)count, sizeof *all);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    uint64_t opening = now_ns();
    for (int i = 0; i < count; i++) {
        all[i].fd = connect_loopback(port);
        all[i].next = 1;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event);
        send_whole(all[i].fd, subscribe.at, subscribe.len);
    }
    while (count_if_open(all, count) < count) {
        turn();
        if (now_ns() - opening > OPEN_NS)
            give_up("%d of %d streams opened", count_if_open(all, count), count);
    }
    int trigger_fd = connect_loopback(port);
    ready_and_wait();
    double cpu = cpu_s(RUSAGE_SELF);
    uint64_t begin = now_ns();
    last_at = begin;
    send_whole(trigger_fd, trigger.at, trigger.len);
    while (!is_done(all, count) && now_ns() - last_at < QUIET_NS)
        turn();
    for (int i = 0; i < count; i++)
        cut += all[i].was_cut || all[i].is_over;
    double seconds = (double)(last_at - begin) / 1e9;
    sort_latencies(&ages);
    printf("{\"expected\":%ld,\"delivered\":%ld,\"out_of_order\":%ld,\"cut\":%ld,\"seconds\":%.6f,\"p50_ms\":%.4f,"
           "\"max_ms\":%.4f,\"cpu_s\":%.4f}\n",
           events * count, delivered, out_of_order, cut, seconds, quantile_ms(&ages, .5), quantile_ms(&ages, 1),
           cpu_s(RUSAGE_SELF) - cpu);
    return 0;
}
