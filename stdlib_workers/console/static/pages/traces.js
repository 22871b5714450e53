// Traces: the list with its filters in the address, and one as a waterfall with everything that is known of its spans.
import { call, clock, duration, exact, go, href, html, param, plural, session, setParams, useMemo, useQuery, useRef, useState } from "../lib/core.js";
import { Badge, Copy, Empty, Failure, Filter, Head, Json, Loading, Rows, Time, act, text } from "../lib/parts.js";
import { exceptionOf, functionOf, isFailure, listRoots, nested, payloadOf, spansOf, startOf, tookOf } from "../lib/spans.js";

export const path = "/traces";
export const title = "Traces";
const SINCE = { "": 0, "10m": 600_000, "1h": 3_600_000, "24h": 86_400_000 };

export const View = () => (param("trace") && param("with") ? html`<${Comparison} key=${param("trace") + param("with")} ids=${[param("trace"), param("with")]} />` : param("trace") ? html`<${Trace} key=${param("trace")} id=${param("trace")} />` : html`<${List} />`);

const filters = () => ({ name: param("name"), worker: param("worker"), failed: param("failed"), slow: param("slow"), since: param("since") });

const FIRST = 200, MOST = 10_000; // traces that are listed at first, and after scrolling on

function List() {
  const chosen = filters();
  const limit = useRef(FIRST);
  const { data, error, again } = useQuery(`traces ${JSON.stringify(chosen)}`, () => listRoots({ ...chosen, since: SINCE[chosen.since], limit: limit.current }), { topics: ["traces"], pause: 300 });
  const onEnd = () => {
    if (!shown || shown.spans.length < limit.current || limit.current === MOST) return;
    limit.current = Math.min(MOST, limit.current * 4);
    setHeld(false);
    again();
  };
  const [isHeld, setHeld] = useState(false);
  const seen = useRef(null);
  // Nothing moves under the pointer: while it is over the list, new traces wait.
  if (!isHeld || seen.current?.key !== JSON.stringify(chosen)) seen.current = data && { key: JSON.stringify(chosen), data };
  const shown = seen.current?.data ?? data;
  const isFiltered = Object.values(chosen).some(Boolean);
  return html`
    <${Head} title=${title}><span class="quiet">${shown ? `${shown.spans.length.toLocaleString("en")} of ${shown.total.toLocaleString("en")}` : ""}</span>
      ${isHeld && data !== shown && html`<${Badge}>new ones wait while you point here<//>`}<span class="spring" />
      <div class="segments" role="group" aria-label="Order"><button aria-pressed=${!chosen.slow} onClick=${() => setParams({ slow: "" })}>Newest</button><button aria-pressed=${chosen.slow === "1"} onClick=${() => setParams({ slow: "1" })}>Slowest</button></div>
      <button aria-pressed=${chosen.failed === "1"} onClick=${() => setParams({ failed: chosen.failed ? "" : "1" })}>Failed</button>
      <select aria-label="Since" value=${chosen.since} onChange=${(event) => setParams({ since: event.target.value })}><option value="">all times</option><option value="10m">10 minutes</option><option value="1h">1 hour</option><option value="24h">24 hours</option></select>
      ${chosen.worker && html`<button class="small" onClick=${() => setParams({ worker: "" })}>Worker ${chosen.worker} ×</button>`}
      <${Filter} value=${chosen.name} onInput=${(name) => setParams({ name })} label="Filter by span name" placeholder="Name of a span" /><//>
    ${error && !data ? html`<${Failure} error=${error} />` : !shown ? html`<${Loading} />` : html`
    <div class="fill" onMouseEnter=${() => setHeld(true)} onMouseLeave=${() => setHeld(false)}>
      <${Rows} rows=${shown.spans} label="Traces" onEnd=${onEnd} columns="100px 70px minmax(0, 1fr) 140px 90px" keyOf=${(span) => span.trace_id}
        header=${html`<span>Started</span><span>Status</span><span>Name</span><span>Worker</span><span class="number">Took</span>`}
        onOpen=${(span) => go(href("/traces", { trace: span.trace_id }))}
        empty=${isFiltered ? html`<${Empty} title="No trace fits these filters." command="iii traces --failed" />` : html`<${Empty} title="Nothing has been called yet." command="iii trigger math::add a=2 b=3" />`}
        row=${(span) => html`<span class="quiet"><${Time} ms=${startOf(span)} /></span><span><${Badge} kind=${span.status === "error" ? "bad" : "good"}>${span.pending ? "running" : span.status}<//></span>
          <a href=${href("/traces", { trace: span.trace_id })}>${span.name}</a><span class="quiet">${span.service_name}</span><span class="number">${span.pending ? "" : duration(tookOf(span))}</span>`} /></div>`}`;
}

function Trace({ id }) {
  const { data, error } = useQuery(`trace ${id}`, async () => {
    const [found, logs] = await Promise.all([spansOf(id), call("engine::logs::list", { trace_id: id, limit: 1000 })]);
    return { spans: nested(found.spans), total: found.total, logs: Map.groupBy(logs.logs, (record) => record.span_id) };
  }, { topics: [`trace ${id}`], pause: 250 });
  const spans = data?.spans ?? [];
  const bounds = useMemo(() => {
    const start = spans.reduce((earliest, { span }) => Math.min(earliest, startOf(span)), Infinity);
    const end = spans.reduce((latest, { span }) => Math.max(latest, span.end_time_unix_nano ? span.end_time_unix_nano / 1e6 : startOf(span)), start);
    return { start, length: Math.max(end - start, 0.001) };
  }, [data]);
  const chosen = spans.find(({ span }) => span.span_id === param("span"))?.span;
  const failures = spans.filter(({ span }) => isFailure(span)).length;
  if (!data) return html`<${Head} title="Trace" />${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  const back = html`<a href=${href("/traces", filters())}>All traces</a>`;
  if (!spans.length) return html`<${Head} title="Trace"><span class="mono">${id}</span>${back}<//><${Empty} title="There is no trace of this id." command="iii traces">It may be too old, or was not recorded.<//>`;
  return html`
    <${Head} title=${spans[0].span.name}><span class="quiet">${plural(spans.length, "span")}${data.total > spans.length ? ` of ${data.total.toLocaleString("en")}` : ""}, ${duration(bounds.length)}</span>${failures > 0 && html`<${Badge} kind="bad">${plural(failures, "failure")}<//>`}
      <span class="quiet"><${Time} ms=${bounds.start} /></span>${back}<span class="spring" /><span class="quiet mono">${id.slice(0, 12)}…</span><${Copy} text=${id} label="Copy id" />
      <${Copy} text=${`iii trace ${id}`} label="Copy as iii trace" /><${Others} id=${id} name=${spans[0].span.name} /><//>
    <div class=${`fill ${chosen ? "with-span" : ""}`}><${Rows} rows=${spans} height=${28} label="Spans" columns="minmax(160px, 34%) 110px minmax(0, 1fr) 76px" keyOf=${({ span }) => span.span_id}
      header=${html`<span>Span</span><span>Worker</span><${Scale} length=${bounds.length} /><span class="number">Took</span>`}
      onOpen=${({ span }) => setParams({ span: param("span") === span.span_id ? "" : span.span_id })}
      row=${({ span, depth }) => html`<a href=${href("/traces", { ...filters(), trace: id, span: span.span_id })} style=${{ paddingLeft: `${Math.min(depth, 20) * 14}px` }} class=${span.status === "error" ? "bad-text" : span.span_id === param("span") ? "chosen-span" : "span-name"}>${span.name}</a>
        <span class="quiet">${span.service_name}</span><${Bar} span=${span} bounds=${bounds} logs=${data.logs.get(span.span_id) ?? []} /><span class="number">${span.pending ? "running" : duration(tookOf(span))}</span>`} />
    ${chosen && html`<${Span} key=${chosen.span_id} span=${chosen} logs=${data.logs.get(chosen.span_id) ?? []} />`}</div>`;
}

// The traces that this one can be compared with: others that began with the same.
function Others({ id, name }) {
  const { data } = useQuery(`others ${name}`, () => listRoots({ name, limit: 50 }));
  const others = data?.spans.filter((span) => span.name === name && span.trace_id !== id && !span.pending) ?? [];
  return html`<select aria-label="Compare with" value="" disabled=${!others.length} onChange=${(event) => setParams({ with: event.target.value, span: "" }, {})}>
    <option value="">compare with…</option>${others.map((span) => html`<option key=${span.trace_id} value=${span.trace_id}>${clock(startOf(span))} · ${duration(tookOf(span))} · ${span.status}</option>`)}</select>`;
}

// Spans of two traces, by their names and places: the second call of the same function within a span is another place.
function aligned([one, other]) {
  const places = new Map();
  [one, other].forEach((flat, side) => {
    const path = [], counts = new Map();
    for (const { span, depth } of flat) {
      const above = depth ? path[depth - 1] : "";
      const count = (counts.get(`${above}/${span.name}`) ?? 0) + 1;
      counts.set(`${above}/${span.name}`, count);
      path[depth] = `${above}/${span.name}#${count}`;
      const place = places.get(path[depth]) ?? places.set(path[depth], { key: path[depth], name: span.name, depth, sides: [] }).get(path[depth]);
      place.sides[side] = span;
    }
  });
  // What only the second has comes after what stands before it there, as the keys of a tree sort.
  return [...places.values()];
}

function Comparison({ ids }) {
  const { data, error } = useQuery(`compare ${ids}`, () => Promise.all(ids.map((id) => spansOf(id).then((found) => nested(found.spans)))), {});
  if (!data) return html`<${Head} title="Compare" />${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  const rows = aligned(data);
  const most = Math.max(0.001, ...rows.flatMap((row) => row.sides.map((span) => (span && !span.pending ? tookOf(span) : 0))));
  const side = (span) => (span ? html`<span class=${span.status === "error" ? "bad-text" : ""}>${span.pending ? "running" : duration(tookOf(span))}</span>` : html`<span class="quiet">not there</span>`);
  return html`<${Head} title="Compare">${ids.map((id, index) => html`<a key=${id} href=${href("/traces", { trace: id })}>${index ? "with" : ""} ${id.slice(0, 8)}</a>`)}<a href="/traces">All traces</a><span class="spring" />
      <button class="small" onClick=${() => setParams({ trace: ids[1], with: ids[0] })}>Swap</button><//>
    <div class="fill"><${Rows} rows=${rows} height=${28} label="Spans of both" columns="minmax(160px, 34%) 90px 90px 110px minmax(0, 1fr)" keyOf=${(row) => row.key}
      header=${html`<span>Span</span><span class="number">${ids[0].slice(0, 8)}</span><span class="number">${ids[1].slice(0, 8)}</span><span class="number">Difference</span><span></span>`}
      row=${(row) => {
        const [one, other] = row.sides;
        const more = one && other && !one.pending && !other.pending ? tookOf(other) - tookOf(one) : null;
        return html`<span style=${{ paddingLeft: `${Math.min(row.depth, 20) * 14}px` }}>${row.name}</span><span class="number">${side(one)}</span><span class="number">${side(other)}</span>
          <span class="number">${more === null ? "" : `${more < 0 ? "−" : "+"}${duration(Math.abs(more))}`}</span><svg class="bar" width="100%" height="16" aria-hidden="true">
          ${row.sides.map((span, index) => span && html`<rect key=${index} class=${`${span.status === "error" ? "bad" : ""} ${index ? "" : "pale"}`} x="0" y=${index * 7 + 2} height="5" width=${`${Math.max(0.3, (100 * tookOf(span)) / most)}%`} />`)}</svg>`;
      }} /></div>`;
}

const Scale = ({ length }) => html`<span class="scale">${[0, 0.25, 0.5, 0.75].map((part) => html`<span key=${part}>${duration(length * part)}</span>`)}</span>`;

function Bar({ span, bounds, logs }) {
  const left = (100 * (startOf(span) - bounds.start)) / bounds.length;
  const width = span.pending ? 100 - left : (100 * tookOf(span)) / bounds.length;
  const marks = logs.map((record) => (100 * (record.timestamp_unix_nano / 1e6 - bounds.start)) / bounds.length);
  return html`<svg class="bar" width="100%" height="16" aria-hidden="true">
    ${[25, 50, 75].map((at) => html`<line key=${at} class="grid" x1=${`${at}%`} x2=${`${at}%`} y1="0" y2="16" />`)}
    <rect class=${span.status === "error" ? "bad" : span.pending ? "pending" : ""} x=${`${Math.min(left, 99.7)}%`} y="2" width=${`${Math.max(width, 0.3)}%`} height="10" rx="2" />
    ${marks.map((at, index) => html`<circle key=${index} class="mark" cx=${`${Math.max(0, Math.min(100, at))}%`} cy="14" r="1.5" />`)}</svg>`;
}

function Span({ span, logs }) {
  const payload = payloadOf(span), exception = exceptionOf(span), id = functionOf(span);
  const isLost = payload !== undefined && JSON.stringify(payload).includes("[REDACTED]");
  const edit = () => {
    sessionStorage.setItem(`call  ${id}`, JSON.stringify(payload ?? {}, null, 2));
    go(href("/functions", { id }));
  };
  const replay = () => act("", async () => {
    const answer = await fetchReplay(id, payload);
    go(href("/traces", { trace: answer }));
  });
  return html`<section class="span" aria-label="Span"><div class="head-line"><h2>${span.name}</h2><${Badge} kind=${span.status === "error" ? "bad" : "good"}>${span.pending ? "running" : span.status}<//>
      <span class="quiet" title=${exact(startOf(span))}>${clock(startOf(span))}${span.pending ? "" : `, ${duration(tookOf(span))}`}</span>
      ${id && html`<a href=${href("/functions", { id })}>${id}</a>`}<span class="spring" />
      ${id && span.name.startsWith("call ") && html`<button class="small" disabled=${session.value.read_only || payload === undefined || isLost} title=${payload === undefined ? "its payload was not recorded" : isLost ? "its payload has lost a secret: edit it first" : undefined} onClick=${replay}>Replay</button>
        <button class="small" onClick=${edit}>Edit and replay</button>`}
      <button class="small" onClick=${() => setParams({ span: "" })}>Close</button></div>
    ${(span.status_description || exception) && html`<p class="bad-text">${span.status_description ?? exception["exception.message"]}</p>`}
    ${exception?.["exception.stacktrace"] && html`<pre tabindex="0">${exception["exception.stacktrace"]}</pre>`}
    ${payload !== undefined && html`<h2>Payload</h2><${Json} value=${payload} />`}
    ${logs.length > 0 && html`<h2>Logs</h2><table class="tight"><tbody>${logs.map((record, index) => html`<tr key=${index}><td class="quiet">${clock(record.timestamp_unix_nano / 1e6)}</td><td>${record.severity_text.toLowerCase()}</td><td class="mono">${text(record.body)}</td></tr>`)}</tbody></table>`}
    <h2>Attributes</h2><dl class="facts mono">${span.attributes.filter(([name]) => name !== "function_id").map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${String(value)}</dd>`)}</dl></section>`;
}

// Makes the call again; gives the id of its trace, also when it failed.
async function fetchReplay(function_id, payload) {
  const response = await fetch("/_console/call", { method: "POST", body: JSON.stringify({ function_id, payload }) });
  const answer = await response.json();
  if (!answer.trace_id) throw new Error(answer.error.message);
  return answer.trace_id;
}
