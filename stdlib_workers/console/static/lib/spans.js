// What spans mean, shared by the pages that show them.
import { call } from "./core.js";

export const attribute = (span, name) => span.attributes?.find((pair) => pair[0] === name)?.[1];
export const startOf = (span) => span.start_time_unix_nano / 1e6;
export const tookOf = (span) => (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6;
export const functionOf = (span) => attribute(span, "iii.function.id");

// A handler that waited for a call may have caught its error: as in `iii traces`.
export const isFailure = (span) =>
  span.status === "error" && (!span.parent_span_id || attribute(span, "iii.caller.function") === undefined || attribute(span, "iii.action") !== undefined);

export const listTraces = (query) => call("engine::traces::list", query);

// Roots with `status` error where something deep inside has failed.
export async function listRoots({ name, failed, slow, since, worker, limit }) {
  const query = { sort_by: slow ? "duration" : "start_time", sort_order: "desc", limit };
  if (since) query.start_time = Date.now() - since;
  if (worker) query.service_name = worker;
  if (name || failed) {
    const inside = { ...query, sort_by: "start_time", search_all_spans: true, limit: 1000 };
    if (failed) inside.status = "error";
    if (name) inside.name = name;
    delete inside.service_name;
    const { spans } = await listTraces(inside);
    query.trace_ids = [...new Set(spans.filter((span) => !failed || isFailure(span)).map((span) => span.trace_id))];
    if (!query.trace_ids.length) return { spans: [], total: 0 };
  }
  const found = await listTraces(query);
  const fine = found.spans.filter((span) => span.status !== "error").map((span) => span.trace_id);
  if (fine.length) {
    const { spans } = await listTraces({ trace_ids: fine, status: "error", search_all_spans: true, limit: 1000 });
    const bad = new Set(spans.filter(isFailure).map((span) => span.trace_id));
    for (const span of found.spans) if (bad.has(span.trace_id)) span.status = "error";
  }
  return found;
}

const PAGE = 2000, MOST = 20_000; // spans in one answer, and of one trace

// All spans of a trace, as they began.
export async function spansOf(trace_id) {
  const spans = [];
  for (;;) {
    const found = await listTraces({ trace_id, include_internal: true, sort_by: "start_time", sort_order: "asc", offset: spans.length, limit: PAGE });
    spans.push(...found.spans);
    if (!found.spans.length || spans.length >= Math.min(found.total, MOST)) return { spans, total: found.total };
  }
}

// Spans in the order of a waterfall, each with its depth: below the span that caused it, if that is there.
export function nested(spans) {
  const ids = new Set(spans.map((span) => span.span_id));
  const below = Map.groupBy(spans, (span) => (ids.has(span.parent_span_id) ? span.parent_span_id : null));
  const flat = [];
  const pending = (below.get(null) ?? []).map((span) => [span, 0]).reverse();
  while (pending.length) {
    const [span, depth] = pending.pop();
    flat.push({ span, depth });
    for (const child of (below.get(span.span_id) ?? []).toReversed()) pending.push([child, depth + 1]);
  }
  return flat;
}

export const payloadOf = (span) => {
  const event = span.events?.find((event) => event.name === "iii.invocation.input");
  const found = event?.attributes.find((pair) => pair[0] === "iii.payload.json")?.[1];
  return found === undefined ? undefined : JSON.parse(found);
};
export const exceptionOf = (span) => {
  const event = span.events?.find((event) => event.name === "exception");
  return event && Object.fromEntries(event.attributes);
};
