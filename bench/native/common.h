/* What the benchmark's C programs share: time, buffers, quantiles, loopback sockets, HTTP/1.1 answers.
 *
 * Everything here gives up with a message rather than measure something that is not what was asked for. */
#ifndef CORRAL_BENCH_COMMON_H
#define CORRAL_BENCH_COMMON_H
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ull
#define MARK "@@@@@@@@@@@@@@@@" /* in a request: where the fresh text of each call goes */
#define MARK_LEN 16

static void __attribute__((noreturn, format(printf, 1, 2))) give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static inline double cpu_s(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* -- bytes that grow -------------------------------------------------------------------------------------------- */

struct bytes { char *at; size_t len, room; };

static inline void make_room(struct bytes *b, size_t more)
{
    if (b->len + more <= b->room)
        return;
    while (b->len + more > b->room)
        b->room = b->room ? b->room * 2 : 4096;
    b->at = realloc(b->at, b->room);
    if (!b->at)
        give_up("out of memory");
}

static inline void append(struct bytes *b, const char *data, size_t len)
{
    make_room(b, len);
    memcpy(b->at + b->len, data, len);
    b->len += len;
}

static inline void drop_front(struct bytes *b, size_t len)
{
    b->len -= len;
    memmove(b->at, b->at + len, b->len);
}

static inline struct bytes read_file(const char *path)
{
    struct bytes b = {0};
    FILE *file = fopen(path, "rb");
    if (!file)
        give_up("cannot read %s", path);
    size_t got;
    do {
        make_room(&b, 65536);
        got = fread(b.at + b.len, 1, 65536, file);
        b.len += got;
    } while (got);
    fclose(file);
    return b;
}

/* -- latencies --------------------------------------------------------------------------------------------------- */

struct latencies { uint32_t *us10; size_t count, room; }; /* in tenths of a microsecond */

static inline void note_latency(struct latencies *l, uint64_t ns)
{
    if (l->count == l->room) {
        l->room = l->room ? l->room * 2 : 1 << 16;
        l->us10 = realloc(l->us10, l->room * sizeof *l->us10);
        if (!l->us10)
            give_up("out of memory");
    }
    l->us10[l->count++] = ns / 100 > UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / 100);
}

static inline int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static inline double quantile_ms(struct latencies *l, double q) /* after sorting */
{
    return l->count ? l->us10[(size_t)(q * (double)(l->count - 1) + 0.5)] / 1e4 : 0;
}

static inline void sort_latencies(struct latencies *l)
{
    if (l->count)
        qsort(l->us10, l->count, sizeof *l->us10, by_size);
}

/* -- starting together with whoever measures us --------------------------------------------------------------------- */

static inline void ready_and_wait(void)
{
    char line[16];
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        exit(1);
}

/* -- sockets ----------------------------------------------------------------------------------------------------- */

static inline int connect_loopback(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK); /* nothing else is ever spoken to */
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to))
        give_up("cannot connect to port %d: %s", port, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
}

static inline void send_whole(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t sent = send(fd, data, len, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return; /* the connection is over: the next read tells */
        if (sent > 0) {
            data += sent;
            len -= (size_t)sent;
        }
    }
}

/* -- HTTP/1.1 answers ----------------------------------------------------------------------------------------------- */

struct answer { int status, closes; const char *body; size_t body_len; };

static inline const char *field(const char *head, size_t len, const char *name)
{
    size_t name_len = strlen(name);
    const char *end = head + len;
    for (const char *line = memchr(head, '\n', len); line && ++line < end; line = memchr(line, '\n', (size_t)(end - line)))
        if ((size_t)(end - line) > name_len && line[name_len] == ':' && !strncasecmp(line, name, name_len)) {
            line += name_len + 1;
            while (*line == ' ')
                line++;
            return line;
        }
    return NULL;
}

/* Undo chunked coding. Bytes consumed, 0 when more must come, -1 when it is malformed. */
static inline ssize_t dechunk(const char *from, size_t len, struct bytes *body)
{
    size_t at = 0;
    body->len = 0;
    for (;;) {
        const char *line_end = memmem(from + at, len - at, "\r\n", 2);
        if (!line_end)
            return 0;
        char *digits_end;
        size_t size = strtoul(from + at, &digits_end, 16);
        if (digits_end == from + at)
            return -1;
        at = (size_t)(line_end - from) + 2;
        if (len - at < size + 2)
            return 0;
        append(body, from + at, size);
        at += size + 2;
        if (!size)
            return (ssize_t)at;
    }
}

/* Read one answer from the front of `data`. Bytes consumed, 0 when more must come, -1 when it cannot be understood. */
static inline ssize_t read_answer(const char *data, size_t len, struct answer *a, struct bytes *scratch)
{
    const char *head_end = len ? memmem(data, len, "\r\n\r\n", 4) : NULL;
    if (!head_end)
        return 0;
    size_t head_len = (size_t)(head_end - data) + 4;
    if (head_len < 16 || memcmp(data, "HTTP/1.1 ", 9))
        return -1;
    a->status = atoi(data + 9);
    const char *connection = field(data, head_len, "connection"), *length = field(data, head_len, "content-length");
    const char *coding = field(data, head_len, "transfer-encoding");
    a->closes = connection && !strncasecmp(connection, "close", 5);
    if (length) {
        size_t size = strtoul(length, NULL, 10);
        if (len - head_len < size)
            return 0;
        a->body = data + head_len;
        a->body_len = size;
        return (ssize_t)(head_len + size);
    }
    if (!coding || strncasecmp(coding, "chunked", 7))
        return -1;
    ssize_t used = dechunk(data + head_len, len - head_len, scratch);
    if (used <= 0)
        return used;
    a->body = scratch->at;
    a->body_len = scratch->len;
    return (ssize_t)head_len + used;
}

#endif
