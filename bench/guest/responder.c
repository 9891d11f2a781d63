/*
 * The real servers' stand-in: answers every request with 200 and its name, as fast as it can.
 *
 *   responder PORT NAME[@NETNS]...      each NAME listens in the network namespace /run/netns/NETNS (else in its own)
 *
 * SIGUSR1: from now on connections are accepted and never answered (a wedged app); SIGUSR2: they are answered again.
 */
#define _GNU_SOURCE
#include "common.h"
#include <sched.h>

/* tcc's libc headers hide it without the macro above, and it is one line. */
extern int setns(int fd, int type);

enum { ROOM = 2048, SLOTS = 65536 };

struct connection {
    int server;
    int used;
    char text[ROOM];
};

static struct connection *connections[SLOTS]; /* by file number */
static int listeners[SLOTS];                  /* server + 1, by file number */
static char **names;
static volatile sig_atomic_t wedged;

static void on_signal(int number) { wedged = number == SIGUSR1; }

static void drop(int fd) {
    free(connections[fd]);
    connections[fd] = NULL;
    close(fd);
}

static void answer(int fd) {
    struct connection *c = connections[fd];
    int got = recv(fd, c->text + c->used, ROOM - 1 - c->used, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) drop(fd);
        return;
    }
    c->used += got;
    c->text[c->used] = 0;
    if (strstr(c->text, "\r\n\r\n") == NULL) {
        if (c->used == ROOM - 1) drop(fd);
        return;
    }
    if (wedged) return;
    int last = strstr(c->text, "onnection: close") != NULL || strstr(c->text, "HTTP/1.0\r\n") != NULL;
    char reply[512];
    /* A body of 128 bytes, which is about what /readyz says. */
    int length = snprintf(reply, sizeof reply,
                          "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n"
                          "X-Served-By: %s\r\n%s\r\n%-127s\n",
                          names[c->server], last ? "Connection: close\r\n" : "", "ready");
    c->used = 0;
    if (send(fd, reply, length, MSG_NOSIGNAL) != length || last) drop(fd);
}

int main(int count, char **arguments) {
    if (count < 3) {
        fprintf(stderr, "usage: responder PORT NAME[@NETNS]...\n");
        return 2;
    }
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    names = arguments + 2;
    for (int server = 0; server < count - 2; server++) {
        char *at = strchr(names[server], '@');
        if (at != NULL) {
            char path[300];
            *at = 0;
            snprintf(path, sizeof path, "/run/netns/%s", at + 1);
            int netns = open(path, O_RDONLY | O_CLOEXEC);
            if (netns < 0 || setns(netns, 0) != 0) fail("network namespace", path);
            close(netns);
        }
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        int yes = 1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        struct sockaddr_in address = address_of("0.0.0.0", atoi(arguments[1]));
        if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 4096) != 0)
            fail("listening for", names[server]);
        listeners[fd] = server + 1;
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN);
    }
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        struct event ready[64];
        int n = wait_for(epoll, ready, 64);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].fd;
            if (!listeners[fd]) {
                answer(fd);
                continue;
            }
            int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (client < 0) continue;
            if (client >= SLOTS) {
                close(client);
                continue;
            }
            int yes = 1;
            setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            connections[client] = calloc(1, sizeof(struct connection));
            connections[client]->server = listeners[fd] - 1;
            watch(epoll, EPOLL_CTL_ADD, client, EPOLLIN);
            /* The request is often there already. */
            answer(client);
        }
    }
}
