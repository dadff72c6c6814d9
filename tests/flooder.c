/*
 * Sends prepared frames in turn, as fast as they go, and counts by kind which arrive: more than 100,000 a second.
 *
 *   flooder FRAMES COUNTERS KINDS ALLOWED SENDER... -- RECEIVER...
 *
 * FRAMES: per frame three native uint32 (kind, index of its sender, length) and the octets, which end with the tag of
 * world/packets.py. COUNTERS: a file that is mapped: uint64 stop, stalls, and for every kind sent, then arrived.
 * SENDER, RECEIVER: inherited AF_PACKET sockets, not bound; a sender's interface is "eth0", if there is one just now.
 *
 * After every volley it waits for what the first ALLOWED kinds still lack, so that no queue overflows; what does not
 * come within a while is not waited for again. No thread, no lock: nothing else can hold it up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VOLLEY = 64, SOCKETS = 16, KINDS = 64, BATCH = 64, FRAME = 2048, QUIET_MS = 100, HEAD = 12, TAG = 12, AGAIN = 64 };

static uint64_t *counters;
static uint32_t kinds, allowed, lengths[KINDS];
static struct pollfd receivers[SOCKETS];
static int senders[SOCKETS], interfaces[SOCKETS], absent[SOCKETS], receiver_count;

static uint64_t *sent(uint32_t kind) { return counters + 2 + kind; }
static uint64_t *arrived(uint32_t kind) { return counters + 2 + kinds + kind; }

static void fail(const char *what) {
    perror(what);
    exit(2);
}

static int find_interface(int sender) {
    struct ifreq request = {.ifr_name = "eth0"};
    return ioctl(sender, SIOCGIFINDEX, &request) == 0 ? request.ifr_ifindex : 0;
}

/* An interface that is not there is looked for again only now and then. */
static void shoot(const uint32_t *head) {
    uint32_t kind = head[0], which = head[1];
    if (interfaces[which] == 0 && absent[which]-- <= 0) {
        interfaces[which] = find_interface(senders[which]);
        absent[which] = AGAIN;
    }
    if (interfaces[which] == 0)
        return;
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = interfaces[which], .sll_halen = ETH_ALEN};
    if (sendto(senders[which], head + 3, head[2], 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)head[2])
        ++*sent(kind);
    else if (errno == ENXIO || errno == ENODEV)
        interfaces[which] = 0;
}

static void count_frame(const unsigned char *frame, size_t length) {
    static const unsigned char magic[4] = {0x9e, 'R', 'F', 0xe9};
    if (length < TAG || memcmp(frame + length - TAG, magic, sizeof magic) != 0)
        return;
    uint32_t kind = 0;
    for (size_t at = length - 4; at < length; ++at)
        kind = kind << 8 | frame[at];
    /* An ICMP error ends with the packet it is about, tag and all, but is longer. */
    if (kind < kinds && length == lengths[kind])
        ++*arrived(kind);
}

static int drain(int socket) {
    static unsigned char frames[BATCH][FRAME];
    static struct iovec parts[BATCH];
    static struct mmsghdr messages[BATCH];
    int total = 0, got;
    do {
        for (int i = 0; i < BATCH; ++i) {
            parts[i] = (struct iovec){frames[i], FRAME};
            messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[i], .msg_iovlen = 1}};
        }
        got = recvmmsg(socket, messages, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < got; ++i)
            count_frame(frames[i], messages[i].msg_len);
        total += got > 0 ? got : 0;
    } while (got == BATCH);
    return total;
}

static int drain_all(void) {
    int total = 0;
    for (int i = 0; i < receiver_count; ++i)
        total += drain(receivers[i].fd);
    return total;
}

static int64_t missing(void) {
    int64_t total = 0;
    for (uint32_t kind = 0; kind < allowed; ++kind)
        total += (int64_t)(*sent(kind) - *arrived(kind));
    return total;
}

static void wait_for_arrivals(void) {
    static int64_t given_up;
    drain_all();
    while (missing() > given_up) {
        int ready = poll(receivers, (nfds_t)receiver_count, QUIET_MS);
        if (drain_all() == 0 && ready <= 0) {
            given_up = missing();
            ++counters[1];
        }
    }
}

static void *map_file(const char *path, int flags, int protection, size_t *size) {
    struct stat found;
    int file = open(path, flags);
    if (file < 0 || fstat(file, &found) != 0)
        fail(path);
    *size = (size_t)found.st_size;
    void *mapped = mmap(NULL, *size, protection, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED)
        fail(path);
    return mapped;
}

int main(int count, char **words) {
    size_t size, unused;
    int sender_count = 0, at = 5;
    if (count < 8)
        return 1;
    const char *frames = map_file(words[1], O_RDONLY, PROT_READ, &size);
    counters = map_file(words[2], O_RDWR, PROT_READ | PROT_WRITE, &unused);
    kinds = (uint32_t)atoi(words[3]);
    allowed = (uint32_t)atoi(words[4]);
    for (; at < count && strcmp(words[at], "--") != 0 && sender_count < SOCKETS; ++at)
        senders[sender_count++] = atoi(words[at]);
    for (++at; at < count && receiver_count < SOCKETS; ++at)
        receivers[receiver_count++] = (struct pollfd){.fd = atoi(words[at]), .events = POLLIN};

    if (kinds > KINDS)
        return 1;
    size_t offset = 0;
    for (; offset < size; offset += HEAD + ((((const uint32_t *)(frames + offset))[2] + 3) & ~3u)) {
        const uint32_t *head = (const uint32_t *)(frames + offset);
        lengths[head[0]] = head[2];
    }
    offset = 0;
    while (__atomic_load_n(counters, __ATOMIC_ACQUIRE) == 0) {
        for (int shot = 0; shot < VOLLEY; ++shot) {
            const uint32_t *head = (const uint32_t *)(frames + offset);
            shoot(head);
            offset += HEAD + ((head[2] + 3) & ~3u);
            if (offset >= size)
                offset = 0;
        }
        wait_for_arrivals();
    }
    while (poll(receivers, (nfds_t)receiver_count, QUIET_MS) > 0)
        drain_all();
    return 0;
}
