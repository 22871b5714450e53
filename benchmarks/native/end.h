/* What both ends share: lines in, lines out, the first words of a worker. No JSON is parsed: fields are found by
 * string search, so that an end costs as little as a program can and what is measured lies between the ends.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define READ_SIZE 65536
/* The payload's last member: where `data` ends is found by it, whatever keys the engine adds behind. */
#define PAYLOAD_END "\"b\":3}"
/* Every field before the payload lies in here. */
#define HEAD 256

struct buffer { char *data; size_t start, scanned, end, capacity; };
struct text { char *data; size_t length; };

static void die(const char *what) { perror(what); exit(1); }

static void reserve(struct buffer *buffer, size_t more) {
    if (buffer->start == buffer->end) buffer->start = buffer->scanned = buffer->end = 0;
    if (buffer->end + more <= buffer->capacity) return;
    if (buffer->start > 0) {
        memmove(buffer->data, buffer->data + buffer->start, buffer->end - buffer->start);
        buffer->end -= buffer->start, buffer->scanned -= buffer->start, buffer->start = 0;
    }
    while (buffer->end + more > buffer->capacity) buffer->capacity = buffer->capacity ? buffer->capacity * 2 : 4 * READ_SIZE;
    if (!(buffer->data = realloc(buffer->data, buffer->capacity))) die("realloc");
}

static void append(struct buffer *out, const char *data, size_t length) {
    reserve(out, length);
    memcpy(out->data + out->end, data, length);
    out->end += length;
}

static void append_string(struct buffer *out, const char *string) { append(out, string, strlen(string)); }

static void flush(struct buffer *out) {
    while (out->start < out->end) {
        ssize_t written = write(1, out->data + out->start, out->end - out->start);
        if (written < 0) exit(0); /* the other side is gone: the run is over */
        out->start += written;
    }
}

/* Wait for input; at its end the run is over. */
static void fill(struct buffer *in) {
    reserve(in, READ_SIZE);
    ssize_t size = read(0, in->data + in->end, in->capacity - in->end);
    if (size <= 0) exit(0);
    in->end += size;
}

static int next_line(struct buffer *in, struct text *line) {
    char *newline = memchr(in->data + in->scanned, '\n', in->end - in->scanned);
    if (!newline) { in->scanned = in->end; return 0; }
    line->data = in->data + in->start;
    line->length = newline - line->data;
    in->start = in->scanned = newline + 1 - in->data;
    return 1;
}

static char *find(struct text line, const char *word) {
    char *at = memmem(line.data, line.length, word, strlen(word));
    return at ? at + strlen(word) : NULL;
}

static struct text head_of(struct text line) {
    if (line.length > HEAD) line.length = HEAD;
    return line;
}

/* Lines that are no call and no result: answer a ping, obey a stop. */
static void control(struct text line, struct buffer *out) {
    if (find(line, "\"type\":\"stop\"")) exit(0);
    if (find(line, "\"type\":\"ping\"")) append_string(out, "{\"type\":\"pong\"}\n");
}

static void introduce(struct buffer *out, const char *name) {
    char line[512];
    const char *given = getenv("III_WORKER_NAME");
    snprintf(line, sizeof line,
             "{\"type\":\"invokefunction\",\"function_id\":\"engine::workers::register\",\"data\":{\"runtime\":\"c\","
             "\"version\":\"1\",\"name\":\"%s\",\"os\":\"linux\",\"pid\":%d},\"action\":{\"type\":\"void\"}}\n",
             given ? given : name, getpid());
    append_string(out, line);
}

/* CPU -1 leaves the placement to the kernel. */
static void pin(int cpu) {
    cpu_set_t set;
    if (cpu < 0) return;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set)) die("sched_setaffinity");
}
