/* relay CALLER ARGS... -- CALLEE ARGS...: starts both and copies bytes between them, on pipes of default size.
 * The same job as floor.py with the interpreter taken away; the yardstick for large payloads.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK 65536

struct direction { int from, to; char *data; size_t start, end, capacity; };

static void die(const char *what) { perror(what); exit(1); }

static void start(char **arguments, int *to, int *from) {
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) die("pipe2");
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execvp(arguments[0], arguments);
        die(arguments[0]);
    }
    close(in[0]);
    close(out[1]);
    *to = in[1];
    *from = out[0];
    fcntl(*to, F_SETFL, O_NONBLOCK);
    fcntl(*from, F_SETFL, O_NONBLOCK);
}

static void push(struct direction *way) {
    while (way->start < way->end) {
        ssize_t written = write(way->to, way->data + way->start, way->end - way->start);
        if (written < 0 && errno == EAGAIN) return;
        if (written < 0) exit(0);
        way->start += written;
    }
    way->start = way->end = 0;
}

/* Reading never stops for a slow reader at the other side: two ends that both write would wait for ever. */
static int pull(struct direction *way) {
    if (way->end + CHUNK > way->capacity) {
        way->capacity = way->capacity * 2 + 4 * CHUNK;
        if (!(way->data = realloc(way->data, way->capacity))) die("realloc");
    }
    ssize_t size = read(way->from, way->data + way->end, CHUNK);
    if (size == 0) return 0;
    if (size > 0) way->end += size;
    return 1;
}

int main(int count, char **arguments) {
    struct direction ways[2] = {0};
    int second = 1;
    while (second < count && strcmp(arguments[second], "--")) second++;
    if (second >= count - 1) { fprintf(stderr, "usage: relay CALLER... -- CALLEE...\n"); return 2; }
    arguments[second] = NULL;
    start(arguments + second + 1, &ways[0].to, &ways[1].from);
    start(arguments + 1, &ways[1].to, &ways[0].from);
    for (;;) {
        struct pollfd polled[4];
        for (int i = 0; i < 2; i++) {
            polled[i] = (struct pollfd){ways[i].from, POLLIN, 0};
            polled[2 + i] = (struct pollfd){ways[i].start < ways[i].end ? ways[i].to : -1, POLLOUT, 0};
        }
        if (poll(polled, 4, -1) < 0) die("poll");
        for (int i = 0; i < 2; i++) {
            if (polled[i].revents && !pull(&ways[i])) return 0;
            if (polled[i].revents || polled[2 + i].revents) push(&ways[i]);
        }
    }
}
