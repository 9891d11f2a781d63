/* What the load programs share. Compiled in the virtual machine by tcc, which is why it is plain C99 and short. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* Microseconds of the clock that Python calls time.monotonic(). */
static inline int64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/*
 * The kernel's struct epoll_event on x86-64, where it is packed: tcc's libc headers drop that attribute, and every second
 * event of a batch would be read from the wrong place.
 */
struct event {
    uint32_t events;
    int32_t fd;
    int32_t unused;
};

static inline void watch(int epoll, int operation, int fd, uint32_t events) {
    struct event event = {events, fd, 0};
    epoll_ctl(epoll, operation, fd, (struct epoll_event *)&event);
}

static inline int wait_for(int epoll, struct event *events, int room) {
    return epoll_wait(epoll, (struct epoll_event *)events, room, -1);
}

static void fail(const char *what, const char *value) {
    fprintf(stderr, "%s %s: %s\n", what, value, strerror(errno));
    exit(1);
}

static struct sockaddr_in address_of(const char *ip, int port) {
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    if (inet_pton(AF_INET, ip, &address.sin_addr) != 1) {
        errno = EINVAL;
        fail("address", ip);
    }
    return address;
}
