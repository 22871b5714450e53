// Flows: the runs, and one of them as the tree of its steps, with what it waits for; signal, cancel, retry, fork.
import { call, duration, go, href, html, param, plural, session, setParams, useDraft, useQuery, useState } from "../lib/core.js";
import { Badge, Copy, Empty, Failure, Filter, Head, Json, Loading, Rows, Time, act, confirm } from "../lib/parts.js";

export const path = "/flows";
export const title = "Flows";
const MOST = 1000; // runs that are listed
const STATES = ["queued", "running", "parked", "held", "blocked", "undoing", "completed", "failed", "cancelled"];
const KINDS = { completed: "good", done: "good", running: "busy", calling: "busy", retrying: "warn", undoing: "warn", blocked: "bad", failed: "bad" };
const ENDED = new Set(["completed", "failed", "cancelled"]);

export const View = () => (param("run") ? html`<${Run} key=${param("run")} id=${param("run")} />` : html`<${List} />`);

function List() {
  const state = param("state"), wanted = param("filter").toLowerCase();
  const { data, error } = useQuery(`runs ${state}`, () => call("flow::list", { limit: MOST, ...(state && { state }) }), { every: 300 });
  if (!data) return html`<${Head} title=${title} />${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  const shown = data.runs?.filter((run) => `${run.run} ${run.function_id} ${run.error?.message ?? ""}`.toLowerCase().includes(wanted)) ?? [];
  return html`
    <${Head} title=${title}><span class="quiet">${plural(shown.length, "run")}${data.cursor ? ", the newest" : ""}</span><span class="spring" />
      <select aria-label="State" value=${state} onChange=${(event) => setParams({ state: event.target.value })}><option value="">all states</option>
        ${STATES.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>
      <${Filter} value=${param("filter")} onInput=${(filter) => setParams({ filter })} label="Filter runs" placeholder="Filter by run, flow, error" /><//>
    <div class="fill"><${Rows} rows=${shown} label="Runs" columns="90px minmax(0, 1fr) minmax(0, 1fr) 70px 110px minmax(0, 1.4fr)" keyOf=${(run) => run.run}
      header=${html`<span>State</span><span>Run</span><span>Flow</span><span class="number">Steps</span><span>Started</span><span>Says</span>`}
      onOpen=${(run) => go(href("/flows", { run: run.run }))}
      empty=${html`<${Empty} title=${state || wanted ? "No run fits." : "No flow has been started yet."} command="iii flow list">A function declared with <code>@worker.flow</code> is one.<//>`}
      row=${(run) => html`<span><${Badge} kind=${KINDS[run.state] ?? ""}>${run.state}<//></span><a class="mono" href=${href("/flows", { run: run.run })}>${run.run}</a>
        <a href=${href("/functions", { id: run.function_id })}>${run.function_id}</a><span class="number">${run.step_count ?? 0}</span><span class="quiet"><${Time} ms=${run.created} /></span>
        <span class=${run.error ? "bad-text" : "quiet"}>${run.error ? run.error.message : run.due ? html`goes on <${Time} ms=${run.due} />` : run.status === undefined ? "" : JSON.stringify(run.status)}</span>`} /></div>`;
}

// The branches of gather and map are nodes of their own: `pack::one/3/pack::one` is a step in the third branch.
function tree(steps) {
  const rows = [], open = new Set();
  for (const step of steps) {
    const parts = step.key.split("/");
    for (let depth = 1; depth < parts.length; depth += 1) {
      const branch = parts.slice(0, depth).join("/");
      if (!open.has(branch)) rows.push({ key: `${branch}/`, name: parts[depth - 1], depth: depth - 1 });
      open.add(branch);
    }
    rows.push({ key: step.key, name: parts.at(-1), depth: parts.length - 1, step });
  }
  return rows;
}

function Run({ id }) {
  const { data: run, error, again } = useQuery(`run ${id}`, () => call("flow::get", { run: id }), { every: 300 });
  const chosen = param("step");
  const back = html`<a href="/flows">All runs</a>`;
  if (!run && error?.code === "run_not_found") return html`<${Head} title=${id}>${back}<//><${Empty} title=${`There is no run ${id}.`} command="iii flow list" />`;
  if (!run) return html`<${Head} title=${id}>${back}<//>${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  if (run.isCut) return html`<${Head} title=${id}>${back}<//><${Json} value=${run} command=${`iii flow show ${id} --json`} />`;
  const disabled = session.value.read_only, isOver = ENDED.has(run.state);
  const change = (done, verb, payload = {}) => act(done, () => call(`flow::${verb}`, { run: id, ...payload })).then(again);
  const cancel = async () => (await confirm(`Cancel ${id}? What its steps have done is undone.`, { action: "Cancel it" })) && change("canceled", "cancel");
  const check = () => act("", async () => {
    const found = await call("flow::check", { run: id });
    if (!found.ok) throw new Error(`today's function does not match: ${found.error?.message}`);
  }).then((isFine) => isFine && act("today's function matches", async () => {}));
  const rows = tree(run.steps);
  const step = run.steps.find((step) => step.key === chosen);
  const trace = run.traceparent?.split("-")[1];
  const waits = run.steps.filter((step) => step.kind === "wait" && step.state === "open");
  return html`
    <${Head} title=${id}><${Badge} kind=${KINDS[run.state] ?? ""}>${run.state}<//><a href=${href("/functions", { id: run.function_id })}>${run.function_id}</a>
      ${trace && html`<a href=${href("/traces", { trace })}>trace</a>`}${back}<span class="spring" /><${Copy} text=${`iii flow show ${id}`} label="Copy as iii flow show" />
      <button class="small" disabled=${disabled} onClick=${check}>Check</button>
      <button class="small" disabled=${disabled || !["failed", "blocked"].includes(run.state)} onClick=${() => change("goes on", "retry")}>Retry</button>
      <button class="small" disabled=${disabled || isOver} onClick=${cancel}>Cancel run</button><//>
    ${run.error && html`<div class="trouble"><b>${run.error.code}</b> <span>${run.error.message}</span></div>`}
    <dl class="facts"><dt>Started</dt><dd><${Time} ms=${run.created} />${run.ended ? html`, ended after ${duration(run.ended - run.created)}` : ""}, ${plural(run.turn ?? 0, "turn")}</dd>
      ${run.due && html`<dt>Goes on</dt><dd><${Time} ms=${run.due} /></dd>`}${run.deadline && !isOver && html`<dt>Has until</dt><dd><${Time} ms=${run.deadline} /></dd>`}
      ${waits.length > 0 && html`<dt>Waits for</dt><dd>${waits.map((wait) => wait.key).join(", ")}</dd>`}
      ${run.unread?.length > 0 && html`<dt>Unread signals</dt><dd>${run.unread.join(", ")}</dd>`}
      ${run.status !== undefined && html`<dt>Says</dt><dd class="mono">${JSON.stringify(run.status)}</dd>`}</dl>
    <div class="items-box"><${Rows} rows=${rows} height=${28} label="Steps" columns="minmax(160px, 34%) 70px 90px 90px minmax(0, 1fr) 80px" keyOf=${(row) => row.key}
      header=${html`<span>Step</span><span>Kind</span><span>State</span><span>Ended</span><span></span><span class="number">Took</span>`}
      onOpen=${(row) => row.step && setParams({ step: row.key === chosen ? "" : row.key })}
      empty=${html`<p class="quiet">It has made no step yet.</p>`}
      row=${({ name, depth, step }) => html`${step ? html`<a class=${step.key === chosen ? "chosen-span" : "span-name"} style=${{ paddingLeft: `${Math.min(depth, 20) * 14}px` }} href=${href("/flows", { run: id, step: step.key })}>${name}</a>`
          : html`<span class="quiet" style=${{ paddingLeft: `${Math.min(depth, 20) * 14}px` }}>${name}</span>`}
        <span class="quiet">${step?.kind ?? ""}</span><span>${step && html`<${Badge} kind=${KINDS[step.state] ?? ""}>${step.state}<//>`}</span><span class="quiet">${step?.ended && html`<${Time} ms=${step.ended} />`}</span>
        <span class=${step?.error ? "bad-text" : "quiet"}>${step?.error?.message ?? step?.undone ?? (step?.due && step.state !== "done" ? html`goes on <${Time} ms=${step.due} />` : "")}</span>
        <span class="number">${step?.started && step.ended ? duration(step.ended - step.started) : ""}</span>`} /></div>
    ${step && html`<${Step} key=${step.key} run=${id} step=${step} disabled=${disabled} />`}
    ${!isOver && html`<${Signal} id=${id} first=${waits[0]?.key.split("/").at(-1).replace(/#\d+$/, "") ?? ""} disabled=${disabled} again=${again} />`}
    <div class="two"><section aria-label="Input"><h2>Input</h2><${Json} value=${run.input} /></section>
      ${run.result !== undefined && html`<section aria-label="Result"><h2>Result</h2><${Json} value=${run.result} /></section>`}</div>`;
}

// Values stand in the export only: they may be long.
function Step({ run, step, disabled }) {
  const { data } = useQuery(`step ${run} ${step.key} ${step.state}`, () => call("flow::export", { run }).then((found) => (found.isCut ? found : found.steps.find((row) => row.key === step.key))));
  const fork = () => act("", async () => {
    const made = await call("flow::fork", { run, from: step.key });
    go(href("/flows", { run: made.run }));
  });
  return html`<section class="span" aria-label="Step"><div class="head-line"><h2>${step.key}</h2>${step.function_id && html`<a href=${href("/functions", { id: step.function_id })}>${step.function_id}</a>`}
      <span class="quiet mono">${step.at ?? ""}</span><span class="quiet">${step.failures ? plural(step.failures, "failure") : ""}</span><span class="spring" />
      <button class="small" disabled=${disabled} onClick=${fork}>Fork from here</button><button class="small" onClick=${() => setParams({ step: "" })}>Close</button></div>
    ${step.error && html`<p class="bad-text">${step.error.code}: ${step.error.message}</p>`}
    ${data?.isCut && html`<${Json} value=${data} command=${`iii flow export ${run}`} />`}
    ${data?.payload !== undefined && html`<h2>Payload</h2><${Json} value=${data.payload} />`}${data?.value !== undefined && html`<h2>Value</h2><${Json} value=${data.value} />`}</section>`;
}

function Signal({ id, first, disabled, again }) {
  const [event, setEvent] = useDraft(`signal ${id}`, first);
  const [typed, setTyped] = useDraft(`signal payload ${id}`, "{}");
  const [mistake, setMistake] = useState("");
  const send = (submitted) => {
    submitted.preventDefault();
    let payload;
    try {
      payload = JSON.parse(typed);
    } catch (error) {
      return setMistake(`This is not JSON: ${error.message}`);
    }
    setMistake("");
    act(`${event} was sent`, () => call("flow::signal", { run: id, event, payload })).then(again);
  };
  return html`<h2>Send a signal</h2><form class="invoke" onSubmit=${send} aria-label="Send a signal"><label class="payload">Event<br /><input value=${event} required onInput=${(change) => setEvent(change.target.value)} /></label>
    <label class="payload">Payload<textarea rows="3" spellcheck="false" value=${typed} aria-invalid=${mistake !== ""} onInput=${(change) => setTyped(change.target.value)} /></label>
    ${mistake && html`<p class="bad-text" role="alert">${mistake}</p>`}<button class="primary" disabled=${disabled}>Send</button></form>`;
}
