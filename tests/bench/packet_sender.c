/* Sends 64-byte frames on an interface and says what one cost: CPU time of this thread, softirqs included.
 *
 * Over veth a frame is forwarded, judged and delivered within the system call that sends it, on this core and in this
 * thread, so that the thread's CPU time is the cost of the whole way, and other processes do not count. (Where the kernel
 * accounts softirqs apart, CONFIG_IRQ_TIME_ACCOUNTING, it would not be: the wall clock is taken there, by WALL=1.)
 * Frames differ by source port: all of one flow, or each the first of a new one. One line on stdout:
 *   frames-sent median-over-bursts-of-ns-per-frame
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FRAME = 60, MOST = 32, IP = 14, L4 = 34 }; /* 60 octets and the check sequence make 64 */

static const char usage[] =
	"usage: packet_sender IFACE TO_MAC FROM_IP TO_IP udp|syn|synack|ack FROM_PORT FLOWS TO_PORT FRAMES MAX_MS\n";

static unsigned char frame[FRAME];

static void fail(const char *what)
{
	fprintf(stderr, "packet_sender: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void put16(int at, unsigned value)
{
	frame[at] = value >> 8;
	frame[at + 1] = value;
}

static uint32_t sum(int from, int octets)
{
	uint32_t total = 0;
	for (int i = from; i < from + octets; i += 2)
		total += frame[i] << 8 | frame[i + 1];
	return total;
}

static unsigned fold(uint32_t total)
{
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return ~total & 0xffff;
}

static void address(int at, const char *text)
{
	if (inet_pton(AF_INET, text, frame + at) != 1)
		fail(text);
}

/* Everything but the source port and the checksum that follows from it; returns how long the segment is. */
static int prepare(char **argv)
{
	int udp = !strcmp(argv[5], "udp"), syn = !strncmp(argv[5], "syn", 3), ack = !!strstr(argv[5], "ack");
	int octets = udp ? FRAME - L4 : 20;
	unsigned m[6];
	if (sscanf(argv[2], "%x:%x:%x:%x:%x:%x", m, m + 1, m + 2, m + 3, m + 4, m + 5) != 6)
		fail(argv[2]);
	for (int i = 0; i < 6; i++)
		frame[i] = m[i];
	put16(12, ETHERTYPE_IP);
	frame[IP] = 0x45;
	put16(IP + 2, 20 + octets);
	frame[IP + 8] = 64;
	frame[IP + 9] = udp ? IPPROTO_UDP : IPPROTO_TCP;
	address(IP + 12, argv[3]);
	address(IP + 16, argv[4]);
	put16(IP + 10, fold(sum(IP, 20)));
	put16(L4 + 2, atoi(argv[8]));
	if (udp) {
		put16(L4 + 4, octets);
		return octets;
	}
	frame[L4 + 7] = syn ? 1 : 2; /* both ends begin with sequence number 1 */
	frame[L4 + 11] = ack ? 2 : 0;
	frame[L4 + 12] = 5 << 4;
	frame[L4 + 13] = (syn ? 0x02 : 0) | (ack ? 0x10 : 0);
	put16(L4 + 14, 0xffff);
	return octets;
}

static void number(int octets, unsigned port)
{
	int at = frame[IP + 9] == IPPROTO_UDP ? L4 + 6 : L4 + 16;
	put16(L4, port);
	put16(at, 0);
	unsigned checksum = fold(sum(IP + 12, 8) + frame[IP + 9] + octets + sum(L4, octets));
	put16(at, checksum ? checksum : 0xffff);
}

static int64_t now_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static int open_socket(const char *interface)
{
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	struct ifreq request = {0};
	strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
	if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request) < 0)
		fail(interface);
	memcpy(frame + 6, request.ifr_hwaddr.sa_data, 6);
	struct sockaddr_ll where = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(interface)};
	if (bind(fd, (struct sockaddr *)&where, sizeof where) < 0)
		fail("bind");
	int on = 1;
	if (setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on) < 0)
		fail("PACKET_QDISC_BYPASS");
	return fd;
}

/* Stays on the core where it is: a frame's way must not be split between two. */
static void stay(void)
{
	cpu_set_t here;
	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	if (sched_setaffinity(0, sizeof here, &here) < 0)
		fail("sched_setaffinity");
}

int main(int argc, char **argv)
{
	if (argc != 11) {
		fputs(usage, stderr);
		return 2;
	}
	stay();
	clockid_t clock = getenv("WALL") ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID;
	int fd = open_socket(argv[1]), octets = prepare(argv);
	unsigned port = atoi(argv[6]), flows = atoi(argv[7]), frames = atoi(argv[9]), sent = 0, bursts = 0;
	unsigned burst = frames < MOST ? frames : MOST;
	int64_t end = now_ns(CLOCK_MONOTONIC) + atoi(argv[10]) * 1000000LL;
	static unsigned char copies[MOST][FRAME];
	static struct iovec parts[MOST];
	static struct mmsghdr messages[MOST];
	double *costs = calloc(frames / burst, sizeof *costs);
	for (unsigned i = 0; i < burst; i++) {
		parts[i] = (struct iovec){copies[i], FRAME};
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
	}
	while (sent + burst <= frames && (bursts == 0 || now_ns(CLOCK_MONOTONIC) < end)) {
		for (unsigned i = 0; i < burst; i++) {
			number(octets, port + (sent + i) % flows);
			memcpy(copies[i], frame, FRAME);
		}
		int64_t begin = now_ns(clock);
		if (sendmmsg(fd, messages, burst, 0) != (int)burst)
			fail("sendmmsg");
		costs[bursts++] = (double)(now_ns(clock) - begin) / burst;
		sent += burst;
	}
	qsort(costs, bursts, sizeof *costs, compare);
	printf("%u %.1f\n", sent, costs[bursts / 2]);
	return 0;
}
