/* calls PORT SECONDS CONNECTIONS REQUESTS: how many calls a gateway answers, and how fast.
 *
 * A closed loop over keep-alive connections with one call outstanding on each. REQUESTS is a file of whole HTTP
 * requests, each behind its length and a line feed; connection i sends the (i mod n)-th again and again, every time with
 * a fresh text in place of each MARK. An answer counts when it is 200 and holds that text; anything else is an error,
 * and the first one is shown. Prints one line of JSON. */
#include "common.h"

#define STALL_NS (10 * NS_PER_S)
#define MARKS_MAX 4

struct request { char *at; size_t len, marks[MARKS_MAX]; int mark_count; };
struct connection { int fd; struct request request; char text[MARK_LEN + 1]; uint64_t sent_at; struct bytes in; };

static struct latencies latencies;
static struct bytes scratch;
static uint64_t calls, errors, reconnects, serial;
static int port, epoll;

static struct request next_request(struct bytes *file, size_t *at)
{
    char *digits_end;
    struct request r = {.len = strtoul(file->at + *at, &digits_end, 10)};
    size_t begin = (size_t)(digits_end - file->at) + 1;
    if (!r.len || begin + r.len > file->len)
        give_up("the file of requests is not as expected");
    r.at = file->at + begin;
    *at = begin + r.len;
    for (char *found = r.at; (found = memmem(found, r.len - (size_t)(found - r.at), MARK, MARK_LEN)); found += MARK_LEN) {
        if (r.mark_count == MARKS_MAX)
            give_up("too many marks in a request");
        r.marks[r.mark_count++] = (size_t)(found - r.at);
    }
    if (!r.mark_count)
        give_up("a request has no mark");
    return r;
}

static void send_call(struct connection *c)
{
    snprintf(c->text, sizeof c->text, "t%015llx", (unsigned long long)++serial);
    for (int i = 0; i < c->request.mark_count; i++)
        memcpy(c->request.at + c->request.marks[i], c->text, MARK_LEN);
    c->sent_at = now_ns();
    send_whole(c->fd, c->request.at, c->request.len);
}

static void open_connection(struct connection *c)
{
    c->fd = connect_loopback(port);
    c->in.len = 0;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
}

static void reopen(struct connection *c)
{
    close(c->fd);
    open_connection(c);
    reconnects++;
}

static void fail(const char *why, const char *data, size_t len)
{
    if (!errors++)
        fprintf(stderr, "%s: %.*s\n", why, (int)(len < 600 ? len : 600), data);
}

/* Whether a call has ended on this connection, well or not. */
static int take_answer(struct connection *c)
{
    make_room(&c->in, 65536);
    ssize_t got = recv(c->fd, c->in.at + c->in.len, 65536, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0) {
        fail("the connection was closed", c->in.at, c->in.len);
        reopen(c);
        return 1;
    }
    c->in.len += (size_t)got;
    struct answer a = {0};
    ssize_t used = read_answer(c->in.at, c->in.len, &a, &scratch);
    if (used == 0)
        return 0;
    if (used < 0 || (size_t)used != c->in.len) {
        fail("this is no answer", c->in.at, c->in.len);
        reopen(c);
        return 1;
    }
    note_latency(&latencies, now_ns() - c->sent_at);
    if (a.status == 200 && memmem(a.body, a.body_len, c->text, MARK_LEN))
        calls++;
    else
        fail("a wrong answer", c->in.at, c->in.len);
    c->in.len = 0;
    if (a.closes)
        reopen(c);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        give_up("usage: calls PORT SECONDS CONNECTIONS REQUESTS");
    port = atoi(argv[1]);
    uint64_t span = (uint64_t)(atof(argv[2]) * 1e9);
    int count = atoi(argv[3]);
    struct bytes file = read_file(argv[4]);
    struct connection *all = calloc((size_t)count, sizeof *all);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0, at = 0; i < (size_t)count; i++) {
        if (at >= file.len)
            at = 0;
        all[i].request = next_request(&file, &at);
        char *own = malloc(all[i].request.len); /* connections may share a template, never its text */
        if (!own)
            give_up("out of memory");
        memcpy(own, all[i].request.at, all[i].request.len);
        all[i].request.at = own;
        open_connection(&all[i]);
    }
    ready_and_wait();
    double cpu = cpu_s(RUSAGE_SELF);
    uint64_t begin = now_ns(), now = begin, last = begin;
    for (int i = 0; i < count; i++)
        send_call(&all[i]);
    while (now < begin + span) {
        struct epoll_event events[64];
        int n = epoll_wait(epoll, events, 64, 100);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (take_answer(c))
                send_call(c);
        }
        now = now_ns();
        last = n > 0 ? now : last;
        if (now - last > STALL_NS)
            break;
    }
    double seconds = (double)(now - begin) / 1e9;
    for (int i = 0; i < count; i++) /* what went unanswered for too long is an error; the last calls under way are not */
        if (now - all[i].sent_at > STALL_NS)
            fail("no answer", all[i].in.at, all[i].in.len);
    sort_latencies(&latencies);
    printf("{\"calls\":%llu,\"errors\":%llu,\"reconnects\":%llu,\"seconds\":%.6f,\"p50_ms\":%.4f,\"p99_ms\":%.4f,\"cpu_s\":%.4f}\n",
           (unsigned long long)calls, (unsigned long long)errors, (unsigned long long)reconnects, seconds,
           quantile_ms(&latencies, .5), quantile_ms(&latencies, .99), cpu_s(RUSAGE_SELF) - cpu);
    return 0;
}
