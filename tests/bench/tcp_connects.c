/* Connects and closes TCP in one thread that holds both ends, and says how many a second of its CPU time.
 *
 * The listener is in one network namespace and the connecting sockets in another, both given as inherited descriptors.
 * Everything in between happens in softirqs of this thread. Closing sends a reset, so that no port stays in TIME_WAIT.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
	fprintf(stderr, "tcp_connects: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int open_in(int namespace)
{
	if (setns(namespace, CLONE_NEWNET) < 0)
		fail("setns");
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0)
		fail("socket");
	return fd;
}

int main(int argc, char **argv)
{
	if (argc != 6) {
		fputs("usage: tcp_connects FROM_NAMESPACE_FD TO_NAMESPACE_FD TO_IP PORT MS\n", stderr);
		return 2;
	}
	cpu_set_t here;
	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	sched_setaffinity(0, sizeof here, &here);
	clockid_t clock = getenv("WALL") ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[4]))};
	inet_pton(AF_INET, argv[3], &to.sin_addr);
	int listener = open_in(atoi(argv[2])), connects = 0;
	if (bind(listener, (struct sockaddr *)&to, sizeof to) < 0 || listen(listener, 16) < 0)
		fail("listen");
	struct linger reset = {.l_onoff = 1};
	if (setns(atoi(argv[1]), CLONE_NEWNET) < 0)
		fail("setns");
	double begin = now_s(clock), end = now_s(CLOCK_MONOTONIC) + atoi(argv[5]) / 1e3;
	for (; now_s(CLOCK_MONOTONIC) < end; connects++) {
		int from = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(from, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		if (connect(from, (struct sockaddr *)&to, sizeof to) < 0)
			fail("connect");
		int accepted = accept(listener, NULL, NULL);
		if (accepted < 0)
			fail("accept");
		close(from);
		close(accepted);
	}
	printf("%d %.1f\n", connects, connects / (now_s(clock) - begin));
	return 0;
}
