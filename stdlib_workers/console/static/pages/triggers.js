// What calls which function: bindings by type; a request tried, a cron job run, a message published.
import { call, href, html, isStandard, param, plural, session, setParams, useDraft, useQuery, useState } from "../lib/core.js";
import { Badge, Copy, Empty, Failure, Filter, Head, Json, Loading, Time, act } from "../lib/parts.js";

export const path = "/triggers";
export const title = "Triggers";

const look = async () => {
  const [types, jobs, origins] = await Promise.all([
    call("engine::triggers::list", {}).then((found) => found.triggers),
    call("cron::list", {}).then((found) => found.jobs, () => []),
    call("http::origins", {}).catch(() => []),
  ]);
  return { types, jobs, origin: origins.find((origin) => origin.startsWith("http://127.0.0.1")) ?? origins[0] };
};

const ORDER = ["http", "websocket", "cron", "subscribe", "durable:subscriber", "queue", "state", "stream"];
const rank = (type) => (ORDER.indexOf(type.id) + 1 || ORDER.length + 1);

export function View() {
  const { data, error, again } = useQuery("triggers", look, { topics: ["functions"], every: 300 });
  if (!data) return html`<${Head} title=${title} />${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  const wanted = param("filter").toLowerCase();
  const fits = (row) => (param("all") || !isStandard(row.function_id)) && `${row.trigger_type} ${row.function_id} ${row.config_summary}`.toLowerCase().includes(wanted);
  const types = data.types.map((type) => ({ ...type, bindings: type.bindings.filter(fits) })).filter((type) => type.bindings.length).sort((one, other) => rank(one) - rank(other));
  const count = types.reduce((sum, type) => sum + type.bindings.length, 0);
  return html`
    <${Head} title=${title}><span class="quiet">${plural(count, "binding")}</span><span class="spring" />
      <label><input type="checkbox" checked=${param("all") === "1"} onChange=${(event) => setParams({ all: event.target.checked ? "1" : "" })} /> the standard workers' too</label>
      <${Filter} value=${param("filter")} onInput=${(filter) => setParams({ filter })} label="Filter triggers" /><//>
    ${!count && html`<${Empty} title=${wanted ? "No trigger fits." : "Nothing is bound to a function yet."} command="iii triggers --types" />`}
    ${types.map((type) => html`<section key=${`${type.namespace} ${type.id}`} aria-label=${type.id}><h2>${type.id} <span class="quiet">${type.description ?? ""}</span></h2>
      <table><tbody>${type.bindings.map((row) => html`<${Binding} key=${row.id} row=${row} origin=${data.origin} again=${again} job=${data.jobs.find((job) => job.job_id === row.id)} />`)}</tbody></table></section>`)}`;
}

function Binding({ row, job, origin, again }) {
  const [isOpen, setOpen] = useState(false);
  const config = row.config ?? {};
  const Tool = { http: Request, cron: Job, subscribe: Publish, "durable:subscriber": Publish }[row.trigger_type];
  const what = { http: () => `${config.http_method ?? "POST"} ${config.api_path}`, cron: () => config.expression, subscribe: () => config.topic, "durable:subscriber": () => config.topic }[row.trigger_type]?.() ?? row.config_summary;
  return html`<tr><td class="mono trigger-what">${what}</td><td><a href=${href("/functions", { id: row.function_id })}>${row.function_id}</a></td>
      <td>${row.state !== "bound" && html`<${Badge} kind="warn">${row.state}<//>`} ${job?.running && html`<${Badge}>running<//>`} ${job?.next && html`<span class="quiet">next <${Time} ms=${Date.parse(job.next)} /></span>`}</td>
      <td class="number">${Tool && html`<button class="small" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>${row.trigger_type === "cron" ? "Ticks" : "Try"}</button>`}</td></tr>
    ${isOpen && html`<tr><td colspan="4"><${Tool} row=${row} job=${job} origin=${origin} again=${again} /></td></tr>`}`;
}

// Calls the function with what the http worker would make of the request.
function Request({ row, origin }) {
  const method = row.config.http_method ?? "POST", pattern = row.config.api_path;
  const names = [...pattern.matchAll(/:(\w+)/g)].map((found) => found[1]);
  const [typed, setTyped] = useDraft(`request ${row.id}`, JSON.stringify({ path_params: Object.fromEntries(names.map((name) => [name, ""])), query_params: {}, headers: {}, body: method === "GET" ? null : {} }, null, 2));
  const [answer, setAnswer] = useState(null);
  let request = null, mistake = "";
  try {
    request = JSON.parse(typed);
  } catch (error) {
    mistake = `This is not JSON: ${error.message}`;
  }
  const send = async (event) => {
    event.preventDefault();
    const payload = { method, path: pattern, query_params_all: {}, trigger: { type: "http", path: pattern, method }, ...request };
    setAnswer(await call(row.function_id, payload).then((result) => ({ result }), (error) => ({ error })));
  };
  const filled = names.reduce((path, name) => path.replace(`:${name}`, encodeURIComponent(request?.path_params?.[name] ?? "")), pattern);
  const query = new URLSearchParams(request?.query_params ?? {}).toString();
  const url = `${origin ?? "http://127.0.0.1:3111"}/${filled.replace(/^\//, "")}${query && `?${query}`}`;
  const curl = `curl -X ${method} '${url}'${request?.body == null ? "" : ` --json '${JSON.stringify(request.body)}'`}`;
  return html`<form class="invoke" onSubmit=${send} aria-label=${`Request to ${pattern}`}><label class="payload">Request, as the function gets it
      <textarea rows="8" spellcheck="false" value=${typed} aria-invalid=${mistake !== ""} onInput=${(event) => setTyped(event.target.value)} /></label>
    ${mistake && html`<p class="bad-text" role="alert">${mistake}</p>`}
    <div class="buttons"><button class="primary" disabled=${session.value.read_only || mistake !== ""}>Call</button>${origin && html`<code>${curl}</code> <${Copy} text=${curl} label="Copy as curl" />`}</div>
    ${answer && html`<section class="outcome" aria-label="Result">${answer.error ? html`<p class="bad-text">${answer.error.message}</p>` : html`<${Json} value=${answer.result} />`}</section>`}</form>`;
}

function Job({ row, job, again }) {
  const { data, error } = useQuery(`ticks ${row.id}`, () => call("cron::next", { expression: row.config.expression, timezone: row.config.timezone ?? "UTC", count: 5 }));
  const run = () => act(`${job.job} was run`, () => call("cron::run", { job: job.job })).then(again);
  return html`<div class="invoke"><p>The next five ticks (${row.config.timezone ?? "UTC"}):</p><${Failure} error=${error} />
    <ol class="attempts">${data?.next.map((tick) => html`<li key=${tick}><span class="mono">${tick}</span> <span class="quiet"><${Time} ms=${Date.parse(tick)} /></span></li>`)}</ol>
    <button disabled=${session.value.read_only || !job} onClick=${run}>Run now</button></div>`;
}

function Publish({ row }) {
  const isDurable = row.trigger_type === "durable:subscriber";
  const [topic, setTopic] = useDraft(`topic ${row.id}`, row.config.topic.includes("*") ? "" : row.config.topic);
  const [typed, setTyped] = useDraft(`message ${row.id}`, "{}");
  const [mistake, setMistake] = useState("");
  const send = (event) => {
    event.preventDefault();
    try {
      const data = JSON.parse(typed);
      setMistake("");
      act(`published to ${topic}`, () => call(isDurable ? "iii::durable::publish" : "publish", { topic, data }));
    } catch (error) {
      setMistake(`This is not JSON: ${error.message}`);
    }
  };
  return html`<form class="invoke" onSubmit=${send} aria-label=${`Publish to ${row.config.topic}`}><label class="payload">Topic<br /><input value=${topic} required onInput=${(event) => setTopic(event.target.value)} /></label>
    <label class="payload">Message<textarea rows="3" value=${typed} aria-invalid=${mistake !== ""} onInput=${(event) => setTyped(event.target.value)} /></label>
    ${mistake && html`<p class="bad-text" role="alert">${mistake}</p>`}<button class="primary" disabled=${session.value.read_only}>Publish</button></form>`;
}
