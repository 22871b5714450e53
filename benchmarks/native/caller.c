/* caller REPORT WINDOW CALLS SIZE CPU: a worker that keeps WINDOW calls of bench::echo in flight until CALLS are answered, after a
 * warm-up, each with a payload of about SIZE bytes; then writes one JSON object with its figures to the file REPORT.
 */
#include "end.h"

#define RING 65536 /* more than any window */

static struct buffer in, out;
static struct text payload;
static uint64_t started[RING], sequence;
static uint64_t *latencies; /* of the run that counts; NULL during warm-up */
static size_t answered;
static int refused; /* the last result was an error */

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void make_payload(size_t size) {
    static struct buffer text;
    char row[128];
    append_string(&text, "{");
    if (size > 64) {
        append_string(&text, "\"rows\":[0");
        for (int i = 0; text.end + 80 < size; i++) {
            snprintf(row, sizeof row, ",{\"id\":%d,\"name\":\"row %d\",\"score\":0.5,\"tags\":[\"a\",\"b\"]}", i, i);
            append_string(&text, row);
        }
        append_string(&text, "],");
    }
    append_string(&text, "\"a\":2," PAYLOAD_END);
    payload = (struct text){text.data, text.end};
}

static void call(size_t times) {
    char head[HEAD];
    uint64_t moment = now();
    for (; times > 0; times--, sequence++) {
        started[sequence % RING] = moment;
        snprintf(head, sizeof head,
                 "{\"type\":\"invokefunction\",\"invocation_id\":\"%08x-0000-4000-8000-%012llx\","
                 "\"function_id\":\"bench::echo\",\"data\":", getpid(), (unsigned long long)sequence);
        append_string(&out, head);
        append(&out, payload.data, payload.length);
        append_string(&out, "}\n");
        flush(&out); /* one write a call, as an SDK's trigger does */
    }
}

static size_t receive(void) {
    struct text line;
    size_t results = 0;
    fill(&in);
    uint64_t moment = now();
    while (next_line(&in, &line)) {
        char *id = find(head_of(line), "\"invocation_id\":\"");
        if (!id || !find(head_of(line), "\"type\":\"invocationresult\"")) { control(line, &out); continue; }
        uint64_t number = strtoull(id + 24, NULL, 16);
        if (latencies) latencies[answered++] = moment - started[number % RING];
        refused = find(head_of(line), "\"error\":") != NULL;
        if (refused && latencies) { fprintf(stderr, "refused: %.*s\n", (int)line.length, line.data); exit(1); }
        results++;
    }
    return results;
}

/* The callee may not be there yet: try until it answers. */
static void await_callee(void) {
    do {
        call(1);
        while (receive() == 0) {}
        if (refused) usleep(20000);
    } while (refused);
}

static void run(size_t window, size_t calls) {
    size_t sent = window < calls ? window : calls, done = 0;
    call(sent);
    while (done < calls) {
        size_t results = receive(), more = results < calls - sent ? results : calls - sent;
        done += results;
        sent += more;
        call(more);
    }
}

/* Nanoseconds on a CPU of the process between the ends (our parent): its main thread does the work. */
static unsigned long long relay_cpu(void) {
    char path[64];
    unsigned long long time = 0;
    snprintf(path, sizeof path, "/proc/%d/schedstat", getppid());
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    if (fscanf(file, "%llu", &time) != 1) time = 0;
    fclose(file);
    return time;
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int main(int count, char **arguments) {
    if (count != 6) { fprintf(stderr, "usage: caller REPORT WINDOW CALLS SIZE CPU\n"); return 2; }
    size_t window = atol(arguments[2]), calls = atol(arguments[3]);
    make_payload(atol(arguments[4]));
    pin(atoi(arguments[5]));
    introduce(&out, "caller");
    append_string(&out, "{\"type\":\"ready\",\"vouches\":true}\n");
    await_callee();
    run(window, calls / 5 + window);
    latencies = malloc(calls * sizeof *latencies);
    unsigned long long cpu = relay_cpu();
    uint64_t begin = now();
    run(window, calls);
    double seconds = (now() - begin) / 1e9;
    cpu = relay_cpu() - cpu;
    qsort(latencies, calls, sizeof *latencies, ascending);
    FILE *report = fopen(arguments[1], "w");
    if (!report) die(arguments[1]);
    fprintf(report, "{\"p50_us\":%.3f,\"p99_us\":%.3f,\"calls_per_s\":%.1f,\"relay_cpu_us\":%.3f,\"bytes\":%zu}\n",
            latencies[calls / 2] / 1e3, latencies[calls * 99 / 100] / 1e3, calls / seconds, cpu / 1e3 / calls,
            payload.length);
    fclose(report);
    return 0;
}
