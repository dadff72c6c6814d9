/* Follows the feeds of very many hosts from one process, and acknowledges every change at once, as their agents would.
 *
 *   feed_clients ADDRESS PORT REQUESTS ACK [plain|tls [return]]
 *
 * REQUESTS is a file of HTTP requests, one for each connection, each ended by a zero octet. ACK is a line with one %llu for
 * the revision that is acknowledged. When every feed has given its first line, "connected SECONDS" is printed; from then on
 * one line "MICROSECONDS CHANGES" after each quiet moment: the time from the first to the last line of a burst of changes.
 * With "return" a feed that ends is asked for again, after a pause as agents make it, and "connected SECONDS" is printed
 * anew when all are there again; else the end of one is the end of all. Certificates are not verified.
 * It ends when its standard input does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
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
	int socket; /* -1: none, not before due */
	SSL *tls;
	const char *request;
	double due, bound; /* of the pause before the next try, as in agent/link.py */
	int asked, head, greeted; /* whether it was asked, and the HTTP head, and the first line, were read */
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
static SSL_CTX *context; /* none: plaintext */
static int epoll, opened, greeted, changes, returns;
static double first, last, started;

static void say(struct feed *feed, const char *text, int size)
{
	int sent = feed->tls ? SSL_write(feed->tls, text, size) : write(feed->socket, text, size);
	if (sent != size && !returns)
		fail("write");
}

static ssize_t take(struct feed *feed, char *room, int size)
{
	if (!feed->tls)
		return read(feed->socket, room, size);
	int got = SSL_read(feed->tls, room, size);
	if (got > 0)
		return got;
	errno = SSL_get_error(feed->tls, got) == SSL_ERROR_WANT_READ ? EAGAIN : ECONNRESET;
	return -1;
}

static void lost(struct feed *feed, const char *why)
{
	if (!returns) {
		fprintf(stderr, "a feed ended: %s\n", why);
		exit(1);
	}
	if (opened == greeted && feed->greeted)
		started = now();
	SSL_free(feed->tls);
	close(feed->socket);
	free(feed->rest);
	opened--;
	greeted -= feed->greeted;
	feed->due = now() + feed->bound * (0.5 + 0.5 * drand48());
	feed->bound = feed->bound < 7.5 ? feed->bound * 2 : 15;
	feed->socket = -1;
	feed->tls = NULL;
	feed->rest = NULL;
	feed->held = feed->asked = feed->head = feed->greeted = 0;
}

static void ask(struct feed *feed)
{
	if (feed->tls) {
		int done = SSL_do_handshake(feed->tls);
		if (done != 1 && SSL_get_error(feed->tls, done) == SSL_ERROR_WANT_READ)
			return;
		if (done != 1) {
			lost(feed, "no TLS");
			return;
		}
	}
	feed->asked = 1;
	say(feed, feed->request, strlen(feed->request));
}

static void begin(struct feed *feed)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = feed};
	int on = 1;
	opened++;
	feed->socket = socket(AF_INET, SOCK_STREAM, 0);
	if (feed->socket < 0)
		fail("socket");
	if (connect(feed->socket, (struct sockaddr *)&server, sizeof server)) {
		lost(feed, strerror(errno));
		return;
	}
	setsockopt(feed->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	fcntl(feed->socket, F_SETFL, O_NONBLOCK);
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, feed->socket, &event))
		fail("epoll_ctl");
	if (context) {
		feed->tls = SSL_new(context);
		SSL_set_fd(feed->tls, feed->socket);
		SSL_set_connect_state(feed->tls);
	}
	ask(feed);
}

static void acknowledge(struct feed *feed, const char *line)
{
	static const char key[] = "\"revision\":";
	const char *found = strstr(line, key);
	char text[512];
	if (!found)
		return;
	int size = snprintf(text, sizeof text, ack, strtoull(found + sizeof key - 1, NULL, 10));
	say(feed, text, size);
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
	feed->bound = 0.25;
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
	ssize_t got = take(feed, room, ROOM);
	if (got <= 0) {
		if (!got || errno != EAGAIN)
			lost(feed, got ? strerror(errno) : "closed");
		return;
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
	if (count < 5) {
		fprintf(stderr, "usage: feed_clients ADDRESS PORT REQUESTS ACK [plain|tls [return]]\n");
		return 2;
	}
	if (count > 5 && !strcmp(words[5], "tls"))
		context = SSL_CTX_new(TLS_client_method());
	returns = count > 6;
	signal(SIGPIPE, SIG_IGN);
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	server.sin_family = AF_INET;
	server.sin_port = htons(atoi(words[2]));
	inet_pton(AF_INET, words[1], &server.sin_addr);
	ack = words[4];
	size_t size, hosts = 0;
	char *text = load(words[3], &size);
	for (size_t n = 0; n < size; n++)
		hosts += !text[n];
	struct feed *feeds = calloc(hosts, sizeof *feeds);
	char *request = text;
	for (size_t n = 0; n < hosts; n++, request += strlen(request) + 1)
		feeds[n] = (struct feed){.request = request, .socket = -1, .bound = 0.25};
	epoll = epoll_create1(0);
	struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
	epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &input);
	started = now();
	int told = 0;
	for (;;) {
		double at = now();
		for (size_t n = 0; (size_t)opened < hosts && n < hosts && (returns || opened - greeted < UNDER_WAY); n++)
			if (feeds[n].socket < 0 && feeds[n].due <= at)
				begin(&feeds[n]);
		if (told && (size_t)greeted < hosts)
			told = 0;
		if (!told && (size_t)greeted == hosts) {
			told = 1;
			printf("connected %.3f\n", now() - started);
			fflush(stdout);
		}
		int found = epoll_wait(epoll, events, EVENTS, 20);
		for (int n = 0; n < found; n++) {
			if (!events[n].data.ptr)
				return 0; /* nothing is ever written there: it was closed */
			struct feed *feed = events[n].data.ptr;
			if (!feed->asked)
				ask(feed);
			else
				do
					receive(feed);
				while (feed->tls && SSL_pending(feed->tls));
		}
		if (!found && changes) {
			printf("%.0f %d\n", (last - first) * 1e6, changes);
			fflush(stdout);
			changes = 0;
		}
	}
}
