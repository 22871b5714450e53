// Queues, their jobs, and the dead letters: look into them, put them back, throw them away.
import { call, duration, go, href, html, param, plural, session, size, useDraft, useQuery, useState } from "../lib/core.js";
import { Badge, Empty, Failure, Head, Json, Loading, Time, act, confirm } from "../lib/parts.js";

export const path = "/queues";
export const title = "Queues";

const look = () => call("iii::queue::list", {}).then((found) => found.queues);

export function View() {
  const { data: queues, error, again } = useQuery("queues", look, { every: 250 });
  const chosen = param("queue");
  if (!queues) return html`<${Head} title=${title} />${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  if (chosen) return html`<${Queue} queue=${queues.find((queue) => queue.name === chosen)} name=${chosen} again=${again} />`;
  return html`
    <${Head} title=${title}><span class="quiet">${plural(queues.length, "queue")}</span><//>
    <div class="table-scroll"><table><thead><tr><th>Name</th><th>Kind</th><th class="number">Waiting</th><th class="number">Delayed</th><th class="number">Running</th>
      <th class="number">Dead</th><th class="number">Delivered</th><th class="number">Failed</th><th class="number">Consumers</th></tr></thead>
    <tbody>${queues.map((queue) => html`<tr key=${queue.name} class="opens" onClick=${(event) => event.target.tagName !== "A" && go(href("/queues", { queue: queue.name }))}>
      <td><a href=${href("/queues", { queue: queue.name })}>${queue.name}</a> ${queue.paused && html`<${Badge} kind="warn">paused<//>`} ${queue.orphaned && html`<${Badge} kind="warn">no consumer<//>`}</td>
      <td>${queue.kind}${queue.type && queue.type !== "standard" ? ` (${queue.type})` : ""}</td>
      <td class="number">${queue.ready}</td><td class="number">${queue.delayed}</td><td class="number">${queue.running}</td>
      <td class="number">${queue.dlq_depth > 0 ? html`<${Badge} kind="bad">${queue.dlq_depth}<//>` : 0}</td>
      <td class="number">${queue.delivered}</td><td class="number">${queue.failed}</td><td class="number">${queue.consumers}</td></tr>`)}</tbody></table></div>
    ${queues.every((queue) => !queue.delivered && !queue.depth) && html`<${Empty} title="No job has been queued yet."
      command='iii trigger hello::greet name=Ada --enqueue default'>Any call can be a job.<//>`}`;
}

function Queue({ queue, name, again }) {
  const jobs = useQuery(`jobs ${name}`, () => call("iii::queue::peek", { queue: name, limit: 200 }).then((found) => found.messages), { every: 250 });
  const letters = useQuery(`letters ${name}`, () => call("engine::queue::dlq_messages", { topic: name, limit: 200 }), { every: 250 });
  if (!queue) return html`<${Head} title=${name} /><${Empty} title=${`There is no queue ${name}.`} command="iii queue list"><a href="/queues">All queues</a><//>`;
  const disabled = session.value.read_only;
  const change = (done, verb, payload = {}) => act(done, () => call(`iii::queue::${verb}`, { queue: name, ...payload })).then(() => (again(), jobs.again(), letters.again()));
  const purge = async () =>
    (await confirm(`Throw away the ${plural(queue.depth, "waiting job")} of ${name}? They cannot be had back.`, { action: "Purge", word: String(queue.depth) })) && change("purged", "purge");
  const redrive = async () =>
    (await confirm(`Put ${plural(queue.dlq_depth, "dead letter")} of ${name} back into the queue?`, { action: "Redrive", word: String(queue.dlq_depth) })) && change("redriven", "redrive");
  return html`
    <${Head} title=${name}><a href="/queues">All queues</a>${queue.paused && html`<${Badge} kind="warn">paused<//>`}<span class="spring" />
      <button disabled=${disabled} onClick=${() => change(queue.paused ? "resumed" : "paused", queue.paused ? "resume" : "pause")}>${queue.paused ? "Resume" : "Pause"}</button>
      <button disabled=${disabled || !queue.dlq_depth} onClick=${redrive}>Redrive all</button><button disabled=${disabled || !queue.depth} onClick=${purge}>Purge</button><//>
    <div class="cards">${[["waiting", queue.ready], ["delayed", queue.delayed], ["running", queue.running], ["dead", queue.dlq_depth], ["delivered", queue.delivered], ["failed tries", queue.failed],
      ...[["behind their group", queue.behind], ["limited by their key", queue.limited], ["filling a batch", queue.filling], ["without a function", queue.held]].filter(([, value]) => value > 0)].map(([label, value]) => html`
      <div class="card" key=${label}><div class="quiet">${label}</div><div class="value">${value.toLocaleString("en")}</div></div>`)}</div>
    <h2>Dead letters</h2>
    ${letters.data?.length === 0 && html`<p class="quiet">None: every job was done, or is still tried.</p>`}
    ${letters.data?.map((letter) => html`<${Letter} key=${letter.id} letter=${letter} disabled=${disabled}
      onRedrive=${(data) => change("put back", "redrive_message", { message_id: letter.id, ...data })}
      onDiscard=${async () => (await confirm("Throw this dead letter away?", { action: "Discard" })) && change("thrown away", "discard_message", { message_id: letter.id })} />`)}
    <h2>Jobs</h2>
    ${jobs.error && html`<${Failure} error=${jobs.error} />`}
    ${jobs.data?.length === 0 && html`<p class="quiet">None is waiting.</p>`}
    ${jobs.data?.length > 0 && html`<table><thead><tr><th>Job</th><th>Function</th><th>State</th><th>Group</th><th>Payload</th></tr></thead><tbody>${jobs.data.map((job) => html`<tr key=${job.id ?? job.message_id}>
      <td class="mono">${String(job.id ?? job.message_id).slice(0, 8)}</td><td>${job.function_id}</td><td>${job.state ?? job.status ?? ""}${job.waits_for && html` <span class="quiet">for ${job.waits_for}</span>`}</td><td>${job.group ?? ""}</td>
      <td class="mono">${JSON.stringify(job.payload ?? job.data)?.slice(0, 200)}</td></tr>`)}</tbody></table>`}`;
}

function Letter({ letter, disabled, onRedrive, onDiscard }) {
  const [isEdited, setEdited] = useState(false);
  const first = JSON.stringify(letter.payload, null, 2);
  const [typed, setTyped] = useDraft(`letter ${letter.id}`, first);
  const [mistake, setMistake] = useState("");
  const send = () => {
    let data;
    try {
      data = JSON.parse(typed);
    } catch (error) {
      return setMistake(`This is not JSON: ${error.message}`);
    }
    setMistake("");
    setTyped(first);
    onRedrive({ data });
  };
  const trace = letter.traceparent?.split("-")[1];
  return html`<article class="trouble" aria-label=${`Dead letter ${letter.id}`}>
    <div class="head-line"><b>${letter.function_id}</b><span class="quiet mono">${letter.id}</span><span class="quiet">failed <${Time} ms=${letter.failed_at} />, ${size(letter.size_bytes)}</span>
      ${trace && html`<a href=${href("/traces", { trace })}>trace</a>`}<span class="spring" />
      <button class="small" disabled=${disabled} onClick=${() => onRedrive({})}>Redrive</button>
      <button class="small" disabled=${disabled} onClick=${() => setEdited(!isEdited)}>Edit and redrive</button>
      <button class="small" disabled=${disabled} onClick=${onDiscard}>Discard</button></div>
    <ol class="attempts">${letter.attempts.map((attempt) => html`<li key=${attempt.attempt}>attempt ${attempt.attempt}, <${Time} ms=${attempt.started_at} />, ${duration(attempt.ended_at - attempt.started_at)}:
      ${" "}<span class="bad-text">${attempt.error ? `${attempt.error.code}: ${attempt.error.message}` : "interrupted"}</span></li>`)}</ol>
    ${isEdited ? html`<label>Payload<textarea rows=${Math.min(14, typed.split("\n").length + 1)} value=${typed} aria-invalid=${mistake !== ""} onInput=${(event) => setTyped(event.target.value)} /></label>
      ${mistake && html`<p class="bad-text" role="alert">${mistake}</p>`}<button class="primary" disabled=${disabled} onClick=${send}>Redrive with this</button>` : html`<${Json} value=${letter.payload} />`}
  </article>`;
}
