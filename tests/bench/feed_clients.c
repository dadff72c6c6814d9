/* Follows the feeds of very many hosts from one process, and acknowledges every change at once, as their agents would.
 *
 *   feed_clients ADDRESS PORT REQUESTS ACK
 *
 * REQUESTS is a file of HTTP requests, one for each connection, each ended by a zero octet. ACK is a line with one %llu for
 * the revision that is acknowledged. When every feed has given its first line, "connected SECONDS" is printed; from then on
 * one line "MICROSECONDS CHANGES" after each quiet moment: the time from the first to the last line of a burst of changes.
 * It ends when its standard input does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 1 << 16, EVENTS = 512, UNDER_WAY = 256 };

struct feed {
	int socket;
	const char *request;
	int head, greeted; /* whether the HTTP head, and the first line, were read */
	size_t held, size;
	char *rest;
};

static double now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static struct sockaddr_in server;
static const char *ack;
static int epoll, greeted, changes;
static double first, last;

static void begin(struct feed *feed)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = feed};
	int on = 1;
	feed->socket = socket(AF_INET, SOCK_STREAM, 0);
	if (feed->socket < 0 || connect(feed->socket, (struct sockaddr *)&server, sizeof server))
		fail("connect");
	setsockopt(feed->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (write(feed->socket, feed->request, strlen(feed->request)) < 0)
		fail("write");
	fcntl(feed->socket, F_SETFL, O_NONBLOCK);
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, feed->socket, &event))
		fail("epoll_ctl");
}

static void acknowledge(struct feed *feed, const char *line)
{
	static const char key[] = "\"revision\":";
	const char *found = strstr(line, key);
	char text[512];
	if (!found)
		return;
	int size = snprintf(text, sizeof text, ack, strtoull(found + sizeof key - 1, NULL, 10));
	if (write(feed->socket, text, size) != size)
		fail("acknowledge");
}

static void hear(struct feed *feed, char *line)
{
	if (!feed->head) {
		if (!strncmp(line, "HTTP/1.1 ", 9) && strncmp(line + 9, "101", 3)) {
			fprintf(stderr, "refused: %s\n", line);
			exit(1);
		}
		feed->head = !strcmp(line, "\r");
		return;
	}
	if (!strncmp(line, "{\"heartbeat\"", 12))
		return;
	if (!feed->greeted) {
		feed->greeted = 1;
		greeted++;
	} else {
		last = now();
		if (!changes++)
			first = last;
	}
	acknowledge(feed, line);
}

static void receive(struct feed *feed)
{
	static char room[ROOM + 1];
	ssize_t got = read(feed->socket, room, ROOM);
	if (got <= 0) {
		if (got < 0 && errno == EAGAIN)
			return;
		fprintf(stderr, "a feed ended: %s\n", got ? strerror(errno) : "closed");
		exit(1);
	}
	char *data = room;
	if (feed->held) { /* seldom: a line that came in pieces */
		feed->rest = realloc(feed->rest, feed->held + got + 1);
		memcpy(feed->rest + feed->held, room, got);
		data = feed->rest;
		got += feed->held;
	}
	data[got] = 0;
	char *line = data, *end;
	while ((end = memchr(line, '\n', data + got - line))) {
		*end = 0;
		hear(feed, line);
		line = end + 1;
	}
	size_t left = data + got - line;
	if (left) {
		char *kept = malloc(left + 1);
		memcpy(kept, line, left);
		free(feed->rest);
		feed->rest = kept;
	} else {
		free(feed->rest);
		feed->rest = NULL;
	}
	feed->held = left;
}

static char *load(const char *path, size_t *size)
{
	FILE *file = fopen(path, "rb");
	if (!file)
		fail(path);
	fseek(file, 0, SEEK_END);
	*size = ftell(file);
	rewind(file);
	char *text = malloc(*size);
	if (fread(text, 1, *size, file) != *size)
		fail(path);
	fclose(file);
	return text;
}

int main(int count, char **words)
{
	if (count != 5) {
		fprintf(stderr, "usage: feed_clients ADDRESS PORT REQUESTS ACK\n");
		return 2;
	}
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	server.sin_family = AF_INET;
	server.sin_port = htons(atoi(words[2]));
	inet_pton(AF_INET, words[1], &server.sin_addr);
	ack = words[4];
	size_t size, hosts = 0, begun = 0;
	char *text = load(words[3], &size);
	for (size_t n = 0; n < size; n++)
		hosts += !text[n];
	struct feed *feeds = calloc(hosts, sizeof *feeds);
	char *request = text;
	for (size_t n = 0; n < hosts; n++, request += strlen(request) + 1)
		feeds[n].request = request;
	epoll = epoll_create1(0);
	struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
	epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &input);
	double started = now();
	int told = 0;
	for (;;) {
		while (begun < hosts && begun - greeted < UNDER_WAY)
			begin(&feeds[begun++]);
		if (!told && (size_t)greeted == hosts) {
			told = 1;
			printf("connected %.3f\n", now() - started);
			fflush(stdout);
		}
		int found = epoll_wait(epoll, events, EVENTS, 50);
		for (int n = 0; n < found; n++) {
			if (!events[n].data.ptr)
				return 0; /* nothing is ever written there: it was closed */
			receive(events[n].data.ptr);
		}
		if (!found && changes) {
			printf("%.0f %d\n", (last - first) * 1e6, changes);
			fflush(stdout);
			changes = 0;
		}
	}
}
