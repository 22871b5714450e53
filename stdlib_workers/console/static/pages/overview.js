// What needs somebody, first; then how the project is.
import { call, duration, href, html, plural, size, useQuery } from "../lib/core.js";
import { Badge, Empty, Head, Loading, Spark, Time } from "../lib/parts.js";
import { functionOf, isFailure, listTraces, startOf } from "../lib/spans.js";

export const path = "/";
export const title = "Overview";
const WINDOW = 600_000; // ms

const orNull = (question) => question.catch((error) => (error.code === "offline" ? Promise.reject(error) : null));

const workersNow = () => call("engine::workers::list", {}).then((found) => found.workers);

// What the telemetry knows.
async function callsNow() {
  const since = Date.now() - WINDOW;
  const [failed, alerts, metrics, rollups] = await Promise.all([
    orNull(listTraces({ status: "error", search_all_spans: true, start_time: since, sort_by: "start_time", sort_order: "desc", limit: 1000 })),
    orNull(call("engine::alerts::list", {})),
    orNull(call("engine::metrics::list", {})),
    orNull(call("engine::rollups::list", { start_time: since, metric_name: "iii.invocations.total" })),
  ]);
  return { failed, alerts, metrics, rollups };
}

// What nothing tells of.
async function waitingNow() {
  const [queues, jobs] = await Promise.all([orNull(call("iii::queue::list", {})), orNull(call("cron::list", {}))]);
  return { queues, jobs };
}

function failing(spans) {
  const byFunction = new Map();
  for (const span of spans.filter(isFailure)) {
    const id = functionOf(span) ?? span.name;
    const row = byFunction.get(id) ?? byFunction.set(id, { id, count: 0, last: span }).get(id);
    row.count += 1;
  }
  return [...byFunction.values()].sort((one, other) => other.count - one.count);
}

export function View() {
  const { data: workers, error } = useQuery("overview workers", workersNow, { topics: ["workers", "functions"], every: 1000, pause: 100 });
  const { data: telemetry } = useQuery("overview calls", callsNow, { topics: ["traces"], every: 3000, pause: 400 });
  const { data: waiting } = useQuery("overview waiting", waitingNow, { topics: ["functions"], every: 300 });
  if (!workers || !telemetry || !waiting) return html`<${Head} title=${title} /><${Loading} />`;
  const { failed, alerts, metrics, rollups } = telemetry;
  const { queues, jobs } = waiting;
  const down = workers.filter((worker) => worker.state === "failed" || worker.state === "backoff" || worker.last_error);
  const calls = failing(failed?.spans ?? []);
  const dead = (queues?.queues ?? []).filter((queue) => queue.dlq_depth > 0);
  const firing = (alerts?.alerts ?? []).filter((alert) => alert.firing);
  const isCalm = !down.length && !calls.length && !dead.length && !firing.length;
  const counts = metrics?.engine_metrics;
  const buckets = rollups?.rollups ?? [];
  return html`
    <${Head} title=${title} />
    <section aria-label="What needs somebody">
      ${isCalm && html`<p class="calm">Nothing needs you: every worker serves, and nothing has failed in ten minutes.</p>`}
      ${down.map((worker) => html`<${Trouble} key=${worker.name} title=${html`<a href=${href("/workers", { name: worker.name })}>${worker.name}</a>`}
        badge=${worker.state === "ready" ? "reload failed" : worker.state}>
        ${worker.last_error ? html`${worker.last_error.text} <span class="quiet mono">${worker.last_error.file}:${worker.last_error.line}</span>
          ${worker.last_error.source && html`<pre>${worker.last_error.line} | ${worker.last_error.source}</pre>`}` : worker.last_exit?.reason ?? ""}<//>`)}
      ${calls.map((row) => html`<${Trouble} key=${row.id} title=${html`<a href=${href("/functions", { id: row.id })}>${row.id}</a>`} badge=${`${row.count} failed`}>
        ${row.last.status_description} <a href=${href("/traces", { trace: row.last.trace_id })}><${Time} ms=${startOf(row.last)} /></a><//>`)}
      ${dead.map((queue) => html`<${Trouble} key=${queue.name} title=${html`<a href=${href("/queues", { queue: queue.name })}>${queue.name}</a>`}
        badge=${plural(queue.dlq_depth, "dead letter")}>Jobs that were tried as often as the queue allows.<//>`)}
      ${firing.map((alert) => html`<${Trouble} key=${alert.name} title=${alert.name} badge="alert">${alert.current_value} ${alert.operator} ${alert.threshold}<//>`)}
    </section>
    <h2>Calls</h2>
    ${counts
      ? html`<div class="cards">
          <${Card} name="in ten minutes" value=${buckets.length ? buckets.reduce((sum, bucket) => sum + bucket.sum, 0).toLocaleString("en") : "–"}
            values=${buckets.map((bucket) => bucket.sum)} />
          <${Card} name="since the start" value=${counts.invocations.total.toLocaleString("en")} />
          <${Card} name="failed" value=${counts.invocations.total ? `${((100 * counts.invocations.error) / counts.invocations.total).toFixed(1)} %` : "–"} />
          <${Card} name="95 % within" value=${duration(counts.performance.p95_duration_ms) || "–"} />
        </div>`
      : html`<${Empty} title="Counts, traces and logs need the worker observability." command="iii add observability">A running project picks it up.<//>`}
    <h2>Workers</h2>
    <div class="cards">${workers.map((worker) => html`<a class="card" key=${worker.id ?? worker.name} href=${href("/workers", { name: worker.name })}>
      <div>${worker.name} <${Badge} kind=${worker.state === "failed" ? "bad" : worker.state === "ready" || !worker.state ? "good" : ""}>${worker.state ?? worker.status}<//></div>
      <div class="quiet">${size(worker.metrics?.memory_rss)} · ${plural(worker.function_count ?? 0, "function")}</div></a>`)}</div>
    ${jobs?.jobs?.length > 0 && html`<h2>Next cron ticks</h2><table><tbody>
      ${jobs.jobs.filter((job) => job.next).sort((one, other) => one.next.localeCompare(other.next)).slice(0, 5).map((job) => html`
        <tr key=${job.job_id}><td>${job.job}</td><td class="mono">${job.expression}</td><td class="number"><${Time} ms=${Date.parse(job.next)} /></td></tr>`)}
      </tbody></table>`}
    ${error && error.code !== "offline" && html`<p class="failure">${error.message}</p>`}`;
}

const Trouble = ({ title, badge, children }) => html`<div class="trouble"><b>${title}</b> <${Badge} kind="bad">${badge}<//> <span>${children}</span></div>`;
const Card = ({ name, value, values }) => html`<div class="card"><div class="quiet">${name}</div><div class="value">${value}</div>
  ${values?.length > 1 && html`<${Spark} values=${values} label=${`calls a minute: ${values.join(", ")}`} width=${150} height=${24} />`}</div>`;
