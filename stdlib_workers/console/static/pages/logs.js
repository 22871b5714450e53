// What the workers have logged, as it comes.
import { call, clock, exact, href, html, onTopic, param, setParams, signal, useMemo, useQuery, useState } from "../lib/core.js";
import { Badge, Copy, Empty, Failure, Filter, Head, Loading, Rows, text } from "../lib/parts.js";

export const path = "/logs";
export const title = "Logs";
const KEPT = 10_000;
const LEVELS = { "": 0, debug: 5, info: 9, warn: 13, error: 17 };

// The records that came while pages were open: on every page, so that coming back to this one shows them.
const came = signal([]);
const leftOut = signal(0);
onTopic("log", ({ records, left_out }) => {
  came.value = came.value.concat(records).slice(-KEPT);
  leftOut.value += left_out;
});

const identity = (record) => `${record.timestamp_unix_nano} ${record.service_name} ${record.span_id} ${text(record.body)}`;

export function View() {
  const { data, error } = useQuery("logs", async () => (await call("engine::logs::list", { limit: 2000 })).logs);
  const [frozen, setFrozen] = useState(null);
  const [chosen, setChosen] = useState(null);
  const level = param("level"), worker = param("worker"), trace = param("trace"), wanted = param("filter").toLowerCase();
  const all = useMemo(() => {
    if (!data) return null;
    const stored = [...data].sort((one, other) => one.timestamp_unix_nano - other.timestamp_unix_nano);
    const known = new Set(stored.map(identity));
    return stored.concat(came.value.filter((record) => !known.has(identity(record)))).slice(-KEPT);
  }, [data, came.value]);
  if (!all) return html`<${Head} title=${title} />${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  const source = frozen ?? all;
  const workers = [...new Set(all.map((record) => record.service_name).filter(Boolean))].sort();
  const shown = source.filter((record) =>
    record.severity_number >= LEVELS[level] && (!worker || record.service_name === worker) && (!trace || record.trace_id === trace) &&
    (!wanted || `${text(record.body)} ${JSON.stringify(record.attributes ?? {})}`.toLowerCase().includes(wanted)));
  return html`
    <${Head} title=${title}><span class="quiet">${shown.length.toLocaleString("en")} of ${source.length.toLocaleString("en")}</span>
      ${leftOut.value > 0 && html`<${Badge} kind="warn">${leftOut.value} came too fast to be shown<//>`}<span class="spring" />
      ${trace && html`<button class="small" onClick=${() => setParams({ trace: "" })}>Trace ${trace.slice(0, 8)} ×</button>`}
      <select aria-label="Level" value=${level} onChange=${(event) => setParams({ level: event.target.value })}>
        <option value="">all levels</option><option value="info">info and above</option><option value="warn">warn and above</option><option value="error">error</option></select>
      <select aria-label="Worker" value=${worker} onChange=${(event) => setParams({ worker: event.target.value })}>
        <option value="">all workers</option>${[...new Set([...workers, ...(worker ? [worker] : [])])].map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>
      <${Filter} value=${param("filter")} onInput=${(filter) => setParams({ filter })} label="Filter logs" />
      <button aria-pressed=${frozen !== null} onClick=${() => setFrozen(frozen ? null : all)}>${frozen ? `Paused · ${all.length - frozen.length} new` : "Pause"}</button><//>
    <div class="fill"><${Rows} rows=${shown} label="Log records" height=${26} columns="92px 56px 120px minmax(0, 1fr) 74px" stick=${!frozen && !chosen}
      keyOf=${(record) => identity(record)} onOpen=${(record) => setChosen(record)}
      empty=${html`<${Empty} title=${all.length ? "No record fits these filters." : "Nothing has been logged yet."} command="iii logs -f" />`}
      row=${(record) => html`
        <time class="quiet" datetime=${new Date(record.timestamp_unix_nano / 1e6).toISOString()} title=${exact(record.timestamp_unix_nano / 1e6)}>${clock(record.timestamp_unix_nano / 1e6)}</time>
        <span><${Badge} kind=${record.severity_number >= 17 ? "bad" : record.severity_number >= 13 ? "warn" : ""}>${record.severity_text.toLowerCase()}<//></span>
        <span class="quiet">${record.service_name}</span><span class="mono">${text(record.body)} <span class="quiet">${extras(record)}</span></span>
        <span>${record.trace_id && html`<a href=${href("/traces", { trace: record.trace_id, span: record.span_id })}>trace</a>`}</span>`} />
      ${chosen && html`<section class="record" aria-label="Record"><div class="head-line"><h2>Record</h2><span class="spring" /><${Copy} text=${JSON.stringify(chosen, null, 2)} />
        <button class="small" onClick=${() => setChosen(null)}>Close</button></div><pre tabindex="0">${JSON.stringify(chosen, null, 2)}</pre></section>`}</div>`;
}

function extras(record) {
  const own = Object.entries(record.attributes ?? {}).filter(([name]) => !name.startsWith("iii."));
  return own.map(([name, value]) => `${name}=${text(value)}`).join(" ");
}
