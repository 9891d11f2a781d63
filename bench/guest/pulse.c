/*
 * A client that opens a new connection every few milliseconds, whatever becomes of the ones before, and says which of
 * them were not answered.
 *
 *   pulse ADDRESS PORT INTERVAL_US DURATION_MS LIMIT_MS SLOW_MS SOURCE...
 *
 * The source addresses take turns. An attempt that has no whole answer LIMIT_MS after its start has failed; a limit below
 * the second after which TCP repeats a lost SYN tells lost attempts from late ones. On standard output, times in
 * microseconds of CLOCK_MONOTONIC:
 *
 *   F start source server reason      a failed attempt; server: the one that answered this source last, or -
 *   S start source server latency     one that took SLOW_MS or longer
 *   E attempts failed skipped p50 p90 p99 max latest    at the end; latencies of the answered ones; skipped: not started,
 *      for they were due a quarter of a second ago; the latest start's delay
 */
#define _GNU_SOURCE
#include "common.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum { NAME = 24, SLOTS = 65536, TOO_LATE = 250000 };

struct attempt {
    int64_t start;
    int fd;
    int source;
    int used;
    int sent;
    char text[512];
};

static struct attempt **by_fd;
static char (*last_server)[NAME];
static struct sockaddr_in *sources;
static char **source_names;
static int *latencies;
static int attempts, answered, failed, skipped;
static int64_t limit_us, slow_us;

static void report_failure(struct attempt *a, const char *reason) {
    const char *server = last_server[a->source][0] ? last_server[a->source] : "-";
    failed++;
    printf("F %lld %s %s %s\n", (long long)a->start, source_names[a->source], server, reason);
}

static void end(struct attempt *a) {
    if (a->fd >= 0) {
        by_fd[a->fd] = NULL;
        close(a->fd);
        a->fd = -1;
    }
}

static const char *word(int error) {
    switch (error) {
    case ECONNREFUSED: return "refused";
    case ECONNRESET: return "reset";
    case EHOSTUNREACH: return "unreachable";
    default: return "error";
    }
}

static const char request[] = "GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";

/* Goes on with an attempt whose socket is ready. */
static void go_on(struct attempt *a, int epoll) {
    if (!a->sent) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error == 0 && send(a->fd, request, sizeof request - 1, MSG_NOSIGNAL) < 0) error = errno;
        if (error) {
            report_failure(a, word(error));
            end(a);
            return;
        }
        a->sent = 1;
        watch(epoll, EPOLL_CTL_MOD, a->fd, EPOLLIN);
        return;
    }
    int got = recv(a->fd, a->text + a->used, sizeof a->text - 1 - a->used, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) {
        report_failure(a, word(errno));
        end(a);
        return;
    }
    a->used += got;
    a->text[a->used] = 0;
    char *name = strcasestr(a->text, "X-Served-By: ");
    if (got > 0 && a->used < (int)sizeof a->text - 1 && strstr(a->text, "ready") == NULL) return;
    if (name == NULL || strncmp(a->text, "HTTP/1.1 200", 12) != 0) {
        report_failure(a, "answer");
        end(a);
        return;
    }
    name += 13;
    int length = strcspn(name, "\r\n");
    if (length >= NAME) length = NAME - 1;
    memcpy(last_server[a->source], name, length);
    last_server[a->source][length] = 0;
    int64_t latency = now_us() - a->start;
    latencies[answered++] = latency;
    if (latency >= slow_us)
        printf("S %lld %s %s %lld\n", (long long)a->start, source_names[a->source], last_server[a->source],
               (long long)latency);
    end(a);
}

static int smaller(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static int percentile(double share) {
    if (answered == 0) return -1;
    int index = (int)(share * answered);
    return latencies[index < answered ? index : answered - 1];
}

int main(int count, char **arguments) {
    if (count < 8) {
        fprintf(stderr, "usage: pulse ADDRESS PORT INTERVAL_US DURATION_MS LIMIT_MS SLOW_MS SOURCE...\n");
        return 2;
    }
    struct rlimit files = {SLOTS, SLOTS};
    setrlimit(RLIMIT_NOFILE, &files);
    struct sockaddr_in target = address_of(arguments[1], atoi(arguments[2]));
    int64_t interval = atoll(arguments[3]), duration = atoll(arguments[4]) * 1000;
    limit_us = atoll(arguments[5]) * 1000;
    slow_us = atoll(arguments[6]) * 1000;
    int nsources = count - 7;
    source_names = arguments + 7;
    sources = calloc(nsources, sizeof *sources);
    last_server = calloc(nsources, NAME);
    for (int i = 0; i < nsources; i++) sources[i] = address_of(source_names[i], 0);
    int total = duration / interval;
    struct attempt *all = calloc(total, sizeof *all);
    latencies = calloc(total, sizeof *latencies);
    by_fd = calloc(SLOTS, sizeof *by_fd);
    int epoll = epoll_create1(EPOLL_CLOEXEC), oldest = 0;
    int64_t began = now_us(), latest = 0;
    int ticker = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    /* Fine enough for any interval, and for the limit of the oldest attempt. */
    int64_t tick = interval < 1000 ? interval : 1000;
    struct itimerspec every = {{tick / 1000000, tick % 1000000 * 1000}, {0, 1000}};
    timerfd_settime(ticker, 0, &every, NULL);
    watch(epoll, EPOLL_CTL_ADD, ticker, EPOLLIN);
    for (;;) {
        struct event ready[64];
        int n = wait_for(epoll, ready, 64);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].fd;
            if (fd == ticker) {
                uint64_t expirations;
                if (read(ticker, &expirations, sizeof expirations) < 0) continue;
            } else if (by_fd[fd] != NULL) {
                go_on(by_fd[fd], epoll);
            }
        }
        int64_t now = now_us();
        while (attempts < total && began + attempts * interval <= now) {
            struct attempt *a = &all[attempts];
            int64_t late = now - (began + attempts * interval);
            if (late > latest) latest = late;
            a->source = attempts % nsources;
            attempts++;
            /* The whole machine stood still: a burst of all that was missed would measure itself. */
            if (late > TOO_LATE) {
                a->fd = -1;
                skipped++;
                continue;
            }
            int yes = 1;
            a->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
            if (a->fd < 0 || a->fd >= SLOTS) fail("socket", "");
            setsockopt(a->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
            a->start = now_us();
            if (bind(a->fd, (struct sockaddr *)&sources[a->source], sizeof target) != 0)
                fail("source address", source_names[a->source]);
            by_fd[a->fd] = a;
            if (connect(a->fd, (struct sockaddr *)&target, sizeof target) != 0 && errno != EINPROGRESS) {
                report_failure(a, word(errno));
                end(a);
                continue;
            }
            watch(epoll, EPOLL_CTL_ADD, a->fd, EPOLLOUT);
        }
        for (; oldest < attempts && (all[oldest].fd < 0 || all[oldest].start + limit_us <= now); oldest++) {
            if (all[oldest].fd < 0) continue;
            report_failure(&all[oldest], all[oldest].sent ? "silent" : "lost");
            end(&all[oldest]);
        }
        if (oldest == total) break;
    }
    qsort(latencies, answered, sizeof *latencies, smaller);
    printf("E %d %d %d %d %d %d %d %lld\n", attempts - skipped, failed, skipped, percentile(0.5), percentile(0.9),
           percentile(0.99), answered ? latencies[answered - 1] : -1, (long long)latest);
    return 0;
}
