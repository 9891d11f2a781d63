/*
 * Sends one TCP segment for each of COUNT different connections, as the middle of a connection would look, and says how
 * long that took. With net.ipv4.vs.sloppy_tcp each makes an entry of IPVS that lives for 15 minutes.
 *
 *   flood INTERFACE MAC ADDRESS PORT FIRST COUNT      connections FIRST to FIRST + COUNT - 1; prints nanoseconds
 *
 * The sources are 10.0.0.0/8 with 16 ports each: nothing answers, and nothing may route there.
 */
#define _GNU_SOURCE
#include "common.h"
#include <net/if.h>

struct segment {
    unsigned char ethernet[14];
    unsigned char ip[20];
    unsigned char tcp[20];
};

static uint32_t sum(const unsigned char *bytes, int length, uint32_t start) {
    for (int i = 0; i < length; i += 2) start += bytes[i] << 8 | bytes[i + 1];
    return start;
}

static uint16_t folded(uint32_t value) {
    value = (value >> 16) + (value & 0xffff);
    value = (value >> 16) + (value & 0xffff);
    return htons(~value);
}

int main(int count, char **arguments) {
    if (count != 7) {
        fprintf(stderr, "usage: flood INTERFACE MAC ADDRESS PORT FIRST COUNT\n");
        return 2;
    }
    unsigned mac[6];
    if (sscanf(arguments[2], "%x:%x:%x:%x:%x:%x", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6) {
        errno = EINVAL;
        fail("MAC address", arguments[2]);
    }
    struct sockaddr_in target = address_of(arguments[3], atoi(arguments[4]));
    long first = atol(arguments[5]), total = atol(arguments[6]);
    /* struct sockaddr_ll by hand: tcc does without the kernel's headers. */
    struct {
        uint16_t family, protocol;
        int index;
        uint16_t type;
        uint8_t packet, length, address[8];
    } link = {.family = AF_PACKET, .protocol = htons(0x0800), .index = if_nametoindex(arguments[1]), .length = 6};
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&link, sizeof link) != 0) fail("interface", arguments[1]);
    struct segment s;
    memset(&s, 0, sizeof s);
    for (int i = 0; i < 6; i++) s.ethernet[i] = mac[i];
    s.ethernet[6] = 2;
    s.ethernet[11] = 99;
    s.ethernet[12] = 8;
    s.ip[0] = 0x45;
    s.ip[3] = 40;
    s.ip[8] = 64;
    s.ip[9] = 6;
    memcpy(s.ip + 16, &target.sin_addr, 4);
    memcpy(s.tcp + 2, &target.sin_port, 2);
    s.tcp[12] = 0x50;
    s.tcp[13] = 0x10; /* ACK */
    s.tcp[14] = 0xff;
    struct timespec begin, finish;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (long i = first; i < first + total; i++) {
        uint32_t source = htonl(0x0a000001u + (uint32_t)(i >> 4));
        uint16_t port = htons(20000 + (i & 15));
        memcpy(s.ip + 12, &source, 4);
        memcpy(s.tcp, &port, 2);
        memset(s.ip + 10, 0, 2);
        memset(s.tcp + 16, 0, 2);
        uint16_t check = folded(sum(s.ip, 20, 0));
        memcpy(s.ip + 10, &check, 2);
        check = folded(sum(s.tcp, 20, sum(s.ip + 12, 8, 6 + 20)));
        memcpy(s.tcp + 16, &check, 2);
        while (send(fd, &s, sizeof s, 0) < 0) {
            if (errno != ENOBUFS && errno != EINTR) fail("sending to", arguments[2]);
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &finish);
    printf("%lld\n", (long long)(finish.tv_sec - begin.tv_sec) * 1000000000 + finish.tv_nsec - begin.tv_nsec);
    return 0;
}
