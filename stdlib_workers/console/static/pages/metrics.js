// Counts and durations over time, the metrics that SDKs report, and the alerts with their state.
import { call, clock, duration, href, html, param, setParams, useEffect, useQuery, useRef } from "../lib/core.js";
import { Badge, Empty, Failure, Filter, Head, Loading, Time, text } from "../lib/parts.js";

export const path = "/metrics";
export const title = "Metrics";
const HOUR = 3_600_000;

async function look() {
  const [metrics, alerts, rollups] = await Promise.all([
    call("engine::metrics::list", {}), call("engine::alerts::list", {}), call("engine::rollups::list", { start_time: Date.now() - HOUR })]);
  return { ...metrics, alerts, rollups: Map.groupBy(rollups.rollups, (bucket) => bucket.name) };
}

const series = (buckets = [], value) => {
  const sorted = buckets.toSorted((one, other) => one.bucket_start_ns - other.bucket_start_ns);
  return [sorted.map((bucket) => bucket.bucket_start_ns / 1e9), sorted.map(value)];
};

export function View() {
  const { data, error } = useQuery("metrics", look, { topics: ["traces", "functions"], pause: 1000, every: 5000 });
  if (!data) return html`<${Head} title=${title} />${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  const { invocations, performance } = data.engine_metrics;
  const wanted = param("filter").toLowerCase();
  const rows = Object.entries(invocations.by_function ?? {}).filter(([name]) => name.toLowerCase().includes(wanted)).sort((one, other) => other[1] - one[1]);
  return html`
    <${Head} title=${title}><span class="spring" /><${Filter} value=${param("filter")} onInput=${(filter) => setParams({ filter })} label="Filter functions and metrics" /><//>
    <div class="charts">
      <${Chart} name="Calls a minute" data=${series(data.rollups.get("iii.invocations.total"), (bucket) => bucket.sum)} />
      <${Chart} name="Failures a minute" data=${series(data.rollups.get("iii.invocations.error"), (bucket) => bucket.sum)} />
      <${Chart} name="Memory of a worker, average, MB" data=${series(data.rollups.get("iii.worker.memory.rss"), (bucket) => bucket.avg / 1e6)} />
    </div>
    <h2>Durations</h2><div class="cards">${[["half within", "p50_duration_ms"], ["95 % within", "p95_duration_ms"], ["99 % within", "p99_duration_ms"], ["longest", "max_duration_ms"]].map(([name, key]) => html`
      <div class="card" key=${key}><div class="quiet">${name}</div><div class="value">${duration(performance[key]) || "–"}</div></div>`)}</div>
    <h2>Alerts</h2>${data.alerts.alerts.length ? html`<table><thead><tr><th>Rule</th><th>State</th><th class="number">Value</th><th>Condition</th><th>Looked at</th><th>Last fired</th></tr></thead><tbody>
      ${data.alerts.alerts.map((alert) => html`<tr key=${alert.name}><td>${alert.name}</td><td><${Badge} kind=${alert.firing ? "bad" : "good"}>${alert.firing ? "firing" : "calm"}<//></td>
        <td class="number">${alert.current_value ?? "–"}</td><td class="mono">${alert.operator} ${alert.threshold}</td><td><${Time} ms=${alert.last_evaluated} /></td><td><${Time} ms=${alert.last_triggered} /></td></tr>`)}</tbody></table>`
      : html`<p class="quiet">No rule is declared: <code>[[workers.observability.config.alerts]]</code> with a name, a metric and a threshold makes one.</p>`}
    <h2>Calls by function</h2>${rows.length ? html`<table><thead><tr><th>Function</th><th class="number">Calls since the start</th></tr></thead><tbody>${rows.slice(0, 200).map(([name, count]) => html`
      <tr key=${name}><td><a href=${href("/functions", { id: name })}>${name}</a></td><td class="number">${count.toLocaleString("en")}</td></tr>`)}</tbody></table>` : html`<p class="quiet">None.</p>`}
    <h2>Metrics of SDKs</h2>${data.sdk_metrics.length ? html`<table><thead><tr><th>Name</th><th>Value</th></tr></thead><tbody>${data.sdk_metrics.filter((metric) => metric.name?.toLowerCase().includes(wanted)).slice(0, 500).map((metric, index) => html`
      <tr key=${index}><td class="mono">${metric.name}</td><td class="mono">${text(metric.value ?? metric.data_points ?? metric).slice(0, 300)}</td></tr>`)}</tbody></table>`
      : html`<${Empty} title="No SDK has reported a metric." command="iii metrics" />`}`;
}

let library = null; // loaded with the first chart
const loaded = () => (library ??= new Promise((resolve, reject) => {
  const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "/vendor/uPlot.css" });
  const script = Object.assign(document.createElement("script"), { src: "/vendor/uPlot.js", onload: () => resolve(window.uPlot), onerror: reject });
  document.head.append(style, script);
}));

function Chart({ name, data }) {
  const box = useRef(null), plot = useRef(null);
  useEffect(() => {
    let isOver = false;
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: box.current.clientWidth || 300, height: 150 }));
    loaded().then((uPlot) => {
      if (isOver) return;
      const color = (variable) => () => getComputedStyle(document.documentElement).getPropertyValue(variable);
      const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
      const size = { width: box.current.clientWidth || 300, height: 150 };
      plot.current = new uPlot({ ...size, legend: { show: false }, cursor: { y: false }, scales: { y: { range: (_, low, high) => [0, Math.max(high, 1)] } }, axes: [{ ...axis, values: (_, times) => times.map((time) => clock(time * 1000).slice(0, 5)) }, { ...axis, size: 44 }],
        series: [{}, { stroke: color("--accent"), width: 1.5 }] }, data, box.current);
      observer.observe(box.current);
    });
    return () => {
      isOver = true;
      observer.disconnect();
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => void plot.current?.setData(data), [data]);
  const last = data[1].at(-1);
  const isShort = data[0].length < 2;
  return html`<figure class="card"><figcaption class="quiet">${name}${isShort && " · a line comes with the second minute"}</figcaption><div ref=${box} hidden=${isShort} role="img" aria-label=${`${name}: ${last === undefined ? "nothing yet" : `now ${last}`}`} /></figure>`;
}
