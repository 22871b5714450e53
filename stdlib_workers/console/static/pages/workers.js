// The workers: how they are, what they use, and restart, stop, start.
import { call, duration, go, href, html, now, param, plural, session, setParams, size, useQuery, useState } from "../lib/core.js";
import { Badge, Copy, Empty, Failure, Filter, Head, Loading, Spark, STATES, Time, act, confirm } from "../lib/parts.js";

export const path = "/workers";
export const title = "Workers";
const KEPT = 60; // readings of a sparkline

const history = new Map(); // worker and instance -> readings, kept while the page is left and seen again
const keyOf = (worker) => `${worker.name}/${worker.instance ?? worker.id}`;

async function look() {
  const { workers } = await call("engine::workers::list", {});
  for (const worker of workers.filter((worker) => worker.metrics)) {
    const readings = history.get(keyOf(worker)) ?? history.set(keyOf(worker), []).get(keyOf(worker));
    if (readings.at(-1)?.at !== worker.metrics.timestamp_ms)
      readings.push({ at: worker.metrics.timestamp_ms, cpu: worker.metrics.cpu_percent ?? 0, memory: worker.metrics.memory_rss ?? 0 });
    readings.splice(0, readings.length - KEPT);
  }
  return workers;
}

const READ_ONLY = "this console is read-only";

export function Actions({ worker }) {
  if (!worker.state) return null; // connected by itself: not the engine's to restart
  const isDown = worker.state === "stopped" || worker.state === "failed";
  const run = async (verb) => {
    if (verb === "stop" && !(await confirm(`Stop ${worker.name}? Calls to its functions fail until it is started again.`, { action: "Stop it" }))) return;
    const done = { restart: "restarted", stop: "stopped", start: "started" }[verb];
    await act(`${worker.name} ${done}`, () => call(`engine::workers::${verb}`, { name: worker.name }, { timeout_ms: 120_000 }));
  };
  const button = (verb, label) => html`<button class="small" disabled=${session.value.read_only} title=${session.value.read_only ? READ_ONLY : undefined}
    onClick=${() => run(verb)} aria-label=${`${label} ${worker.name}`}>${label}</button>`;
  return html`<div class="buttons">${isDown ? button("start", "Start") : html`${button("restart", "Restart")}${button("stop", "Stop")}`}</div>`;
}

export function View() {
  const { data: workers, error } = useQuery("workers", look, { topics: ["workers", "functions"], every: 1000, pause: 100 });
  const wanted = param("filter").toLowerCase();
  const chosen = param("name");
  if (!workers) return html`<${Head} title=${title} />${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  if (chosen) return html`<${Detail} name=${chosen} rows=${workers.filter((worker) => worker.name === chosen)} />`;
  const shown = workers.filter((worker) => worker.name.toLowerCase().includes(wanted));
  return html`
    <${Head} title=${title}><span class="quiet">${plural(workers.length, "worker")}</span><span class="spring" />
      <${Filter} value=${param("filter")} onInput=${(filter) => setParams({ filter })} label="Filter workers" /><//>
    ${shown.length === 0 ? html`<${Empty} title="No worker has such a name." command="iii ps" />` : html`
    <div class="table-scroll"><table class="workers">
      <thead><tr><th>Name</th><th>State</th><th class="number">Generation</th><th class="number">Pid</th><th>CPU</th><th>Memory</th>
        <th class="number">Restarts</th><th class="number">Functions</th><th class="number">Running</th><th class="number">Up for</th><th><span class="hidden">What to do</span></th></tr></thead>
      <tbody>${shown.map((worker) => html`<${Row} key=${keyOf(worker)} worker=${worker} />`)}</tbody>
    </table></div>`}`;
}

const State = ({ worker }) => html`<${Badge} kind=${STATES[worker.state] ?? "good"}>${worker.reloading ? "reloading" : worker.state ?? worker.status}<//>`;

function Row({ worker }) {
  const readings = history.get(keyOf(worker)) ?? [];
  const metrics = worker.metrics ?? {};
  return html`<tr>
    <td><a href=${href("/workers", { name: worker.name })}>${worker.name}${worker.instance ? `/${worker.instance}` : ""}</a>
      ${worker.last_error && html`<div class="bad-text">${worker.last_error.text} <span class="mono">${worker.last_error.file}:${worker.last_error.line}</span></div>`}</td>
    <td><${State} worker=${worker} /></td>
    <td class="number">${worker.generation ?? ""}</td><td class="number">${worker.pid ?? ""}</td>
    <td><${Spark} values=${readings.map((reading) => reading.cpu)} width=${52} most=${Math.max(20, ...readings.map((reading) => reading.cpu))} label="CPU over the last minute" />
      ${" "}${metrics.cpu_percent?.toFixed(1) ?? ""}${metrics.cpu_percent == null ? "" : " %"}</td>
    <td><${Spark} values=${readings.map((reading) => reading.memory)} width=${52} label="Memory over the last minute" /> ${size(metrics.memory_rss)}</td>
    <td class="number">${worker.restarts ?? ""}</td><td class="number">${worker.function_count ?? ""}</td><td class="number">${worker.active_invocations ?? ""}</td>
    <td class="number">${worker.started_at ? duration(now.value - worker.started_at * 1000) : ""}</td>
    <td><${Actions} worker=${worker} /></td></tr>`;
}

function Detail({ name, rows }) {
  const { data } = useQuery(`worker ${name} ${rows.map((row) => row.generation)}`, () => call("engine::workers::info", { name }), { topics: ["functions"] });
  if (!rows.length) return html`<${Head} title=${name} /><${Empty} title=${`There is no worker ${name} now.`} command="iii ps"><a href="/workers">All workers</a><//>`;
  return html`
    <${Head} title=${name}><a href="/workers">All workers</a><a href=${href("/logs", { worker: name })}>Logs</a><a href=${href("/traces", { worker: name })}>Traces</a><//>
    ${rows.map((worker) => html`<section key=${keyOf(worker)} aria-label=${`Process ${worker.instance ?? 0}`}>
      ${worker.last_error && html`<div class="trouble"><b>${worker.last_error.text}</b> <span class="mono">${worker.last_error.file}:${worker.last_error.line}</span>
        ${worker.last_error.source && html`<pre>${worker.last_error.line} | ${worker.last_error.source}</pre>`}</div>`}
      <dl class="facts">
        <dt>State</dt><dd><${State} worker=${worker} /> ${worker.state === "backoff" && worker.retry_at && html`again <${Time} ms=${worker.retry_at * 1000} />`}</dd>
        <dt>Process</dt><dd>${worker.pid ?? "none"}, generation ${worker.generation ?? "–"}, ${plural(worker.restarts ?? 0, "restart")}</dd>
        <dt>Started</dt><dd>${worker.started_at ? html`<${Time} ms=${worker.started_at * 1000} />` : "–"}</dd>
        <dt>Uses</dt><dd>${size(worker.metrics?.memory_rss)}, ${worker.metrics?.cpu_percent?.toFixed(1) ?? 0} % CPU, ${plural(worker.metrics?.threads ?? 0, "thread")}</dd>
        <dt>Runs on</dt><dd>${worker.runtime} ${worker.python ?? ""} · SDK ${worker.version ?? "?"} · ${worker.os ?? ""}</dd>
        ${worker.last_exit && html`<dt>Last exit</dt><dd>${worker.last_exit.reason ?? JSON.stringify(worker.last_exit)}</dd>`}
      </dl><${Actions} worker=${worker} /></section>`)}
    ${rows[0].state && html`<${Environment} name=${name} />`}
    <h2>Functions</h2>
    ${data?.functions.length === 0 && html`<p class="quiet">It offers none.</p>`}
    ${data?.functions.length > 0 && html`<table><tbody>${data.functions.map((row) => html`<tr key=${row.function_id} class="opens"
      onClick=${(event) => event.target.tagName !== "A" && go(href("/functions", { id: row.function_id }))}>
      <td><a href=${href("/functions", { id: row.function_id })}>${row.function_id}</a></td><td>${(row.description ?? "").split("\n")[0]}</td></tr>`)}</tbody></table>`}
    ${data?.registered_triggers.length > 0 && html`<h2>Triggers</h2><table><tbody>${data.registered_triggers.map((row) => html`<tr key=${row.id}>
      <td>${row.trigger_type}</td><td>${row.function_id}</td><td class="mono">${row.config_summary}</td></tr>`)}</tbody></table>`}`;
}

// Closed until somebody looks: an environment is long.
function Environment({ name }) {
  const [isOpen, setOpen] = useState(false);
  const { data, error } = useQuery(`environment ${name} ${isOpen}`, async () => isOpen && call("engine::config::list", { worker: name }), { topics: ["workers"] });
  const variables = Object.entries(data?.environment ?? {});
  return html`<details open=${isOpen} onToggle=${(event) => setOpen(event.target.open)}><summary>Environment</summary>
    ${error && html`<${Failure} error=${error} />`}
    ${data && !variables.length && html`<p class="quiet">Not known while iii.toml has mistakes: <a href="/config">Config</a></p>`}
    <table class="config"><tbody>${variables.map(([variable, { value, source }]) => html`<tr key=${variable}><td class="mono">${variable}</td>
      <td class="mono">${value === "[REDACTED]" ? html`<${Badge}>secret<//>` : value}</td><td class="quiet">${source}</td></tr>`)}</tbody></table>
    <p class="quiet"><code>iii env ${name}</code> <${Copy} text=${`iii env ${name}`} /></p></details>`;
}
