/* callee CPU: a worker that provides bench::echo and answers each call with the payload it was given. */
#include "end.h"

static void answer(struct text line, struct buffer *out) {
    char *id = find(head_of(line), "\"invocation_id\":\"");
    char *data = find(head_of(line), "\"data\":");
    if (!id || !data) return;
    struct text rest = {data, line.data + line.length - data};
    char *end = find(rest, PAYLOAD_END);
    char *quote = memchr(id, '"', rest.data + rest.length - id);
    if (!end || !quote) return;
    append_string(out, "{\"type\":\"invocationresult\",\"invocation_id\":\"");
    append(out, id, quote - id);
    append_string(out, "\",\"function_id\":\"bench::echo\",\"result\":");
    append(out, data, end - data);
    append_string(out, "}\n");
    flush(out); /* one write an answer, as an SDK's handler does that ends alone */
}

int main(int count, char **arguments) {
    struct buffer in = {0}, out = {0};
    struct text line;
    pin(count > 1 ? atoi(arguments[1]) : -1);
    introduce(&out, "callee");
    append_string(&out, "{\"type\":\"registerfunction\",\"id\":\"bench::echo\"}\n{\"type\":\"ready\",\"vouches\":true}\n");
    for (;;) {
        flush(&out);
        fill(&in);
        while (next_line(&in, &line)) {
            if (find(head_of(line), "\"type\":\"invokefunction\"")) answer(line, &out);
            else control(line, &out);
        }
    }
}
