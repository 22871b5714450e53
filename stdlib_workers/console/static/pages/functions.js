// Every function: what it takes and gives, a form to call it, what became of its last calls.
import { call, duration, go, href, html, isStandard, param, plural, session, setParams, stream, useDraft, useQuery, useRef, useState } from "../lib/core.js";
import { Badge, Copy, Empty, Failure, Filter, Head, Json, Loading, Rows, Time } from "../lib/parts.js";
import { Form, propertiesOf, textFrom, typeOf, valueFrom } from "../lib/form.js";
import { snippets, terminal } from "../lib/snippets.js";
import { functionOf, listTraces, startOf, tookOf } from "../lib/spans.js";

export const path = "/functions";
export const title = "Functions";

export function View() {
  const isAll = param("all") === "1";
  const { data: functions, error } = useQuery(`functions ${isAll}`, () => call("engine::functions::list", isAll ? { include_internal: true } : {}).then((found) => found.functions), { topics: ["functions"] });
  const wanted = param("filter").toLowerCase().split(/\s+/).filter(Boolean);
  const id = param("id"), namespace = param("namespace");
  if (!functions) return html`<${Head} title=${title} />${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  // The project's own come first.
  const shown = functions.toSorted((one, other) => isStandard(one.function_id) - isStandard(other.function_id)).filter((row) => wanted.every((word) => `${row.function_id} ${row.worker_name} ${row.description ?? ""}`.toLowerCase().includes(word)));
  const open = (row) => go(href("/functions", { ...kept(), id: row.function_id, namespace: row.namespace === "default" ? "" : row.namespace }));
  return html`
    <${Head} title=${title}><span class="quiet">${plural(functions.length, "function")}</span><span class="spring" />
      <label><input type="checkbox" checked=${isAll} onChange=${(event) => setParams({ all: event.target.checked ? "1" : "" })} /> the engine's too</label><//>
    <div class="split"><div class="side">
      <${Filter} value=${param("filter")} onInput=${(filter) => setParams({ filter })} label="Filter functions" placeholder="Filter by name, worker, text" />
      <${Rows} rows=${shown} height=${44} columns="minmax(0, 1fr)" label="Functions" onOpen=${open} keyOf=${(row) => `${row.namespace} ${row.function_id}`}
        empty=${html`<${Empty} title=${functions.length ? "No function fits." : "No worker offers a function yet."} command="iii functions" />`}
        row=${(row) => html`<a class=${`name ${row.function_id === id ? "chosen" : ""}`} href=${href("/functions", { ...kept(), id: row.function_id, namespace: row.namespace === "default" ? "" : row.namespace })} aria-current=${row.function_id === id ? "true" : undefined}>
          <b>${row.function_id}</b><span class="quiet">${row.worker_name}${row.namespace === "default" ? "" : ` · ${row.namespace}`}${row.description ? ` · ${row.description.split("\n")[0]}` : ""}</span></a>`} /></div>
      <div class="detail">${id ? html`<${Function} key=${`${namespace} ${id}`} id=${id} namespace=${namespace} />` : html`<${Empty} title="Choose a function.">Its form is made from its schema; what you type here stays.<//>`}</div>
    </div>`;
}

const kept = () => ({ filter: param("filter"), all: param("all") });

function Function({ id, namespace }) {
  const { data: info, error } = useQuery(`function ${namespace} ${id}`, async () => {
    const info = await call("engine::functions::info", { function_id: id, ...(namespace && { namespace }) });
    return { ...info, routes: await routesOf(info) };
  }, { topics: ["functions"] });
  if (!info) return error ? html`<h1>${id}</h1><${Failure} error=${error} />` : html`<${Loading} />`;
  return html`
    <div class="head-line"><h1>${id}</h1><a href=${href("/workers", { name: info.worker_name })}>${info.worker_name}</a>
      ${info.source && html`<span class="quiet mono">${info.source.file}:${info.source.line}</span>`}
      <a href=${href("/traces", { name: `call ${id}` })}>Traces</a><${Copy} text=${id} label="Copy id" /></div>
    <p class="description">${info.description ?? html`<span class="quiet">It has no description: a docstring becomes one.</span>`}</p>
    <${Invoke} id=${id} namespace=${namespace} schema=${info.request_schema} routes=${info.routes} />
    <${Schema} name="Takes" schema=${info.request_schema} /><${Schema} name="Gives" schema=${info.response_schema} />
    ${info.registered_triggers?.length > 0 && html`<h2>Called by</h2><table><tbody>${info.registered_triggers.map((row) => html`<tr key=${row.id}>
      <td>${row.trigger_type}</td><td class="mono">${row.config_summary ?? JSON.stringify(row.config)}</td><td><${Badge} kind=${row.state === "bound" ? "" : "warn"}>${row.state}<//></td></tr>`)}</tbody></table>`}
    <${LastCalls} id=${id} />`;
}

// The http routes of a function as [method, URL].
async function routesOf(info) {
  const bindings = (info.registered_triggers ?? []).filter((row) => row.trigger_type === "http");
  const origins = bindings.length ? await call("http::origins", {}).catch(() => []) : [];
  const origin = origins.find((origin) => origin.startsWith("http://127.0.0.1")) ?? origins[0];
  return origin ? bindings.map((row) => [row.config?.http_method ?? "POST", `${origin}/${String(row.config?.api_path ?? "").replace(/^\//, "")}`]) : [];
}

function Schema({ name, schema }) {
  const [isJson, setJson] = useState(false);
  const properties = propertiesOf(schema);
  if (!schema) return html`<h2>${name}</h2><p class="quiet">Anything: it has no schema. Type hints become one.</p>`;
  return html`<div class="head-line section"><h2>${name}</h2><button class="small" aria-pressed=${isJson} onClick=${() => setJson(!isJson)}>JSON Schema</button></div>
    ${isJson ? html`<${Json} value=${schema} />` : properties.length ? html`<table><thead><tr><th>Field</th><th>Type</th><th>Default</th><th>Meaning</th></tr></thead><tbody>
      ${properties.map((row) => html`<tr key=${row.name}><td class="mono">${row.name}${row.isRequired && html`<span class="needed" title="required"> *</span>`}</td>
        <td class="mono">${typeOf(row.schema)}</td><td class="mono">${textFrom(row.schema.default)}</td><td>${row.schema.description}</td></tr>`)}</tbody></table>`
    : html`<p><code>${typeOf(schema)}</code> ${schema.description}</p>`}`;
}

// The form, the JSON beside it, and what the call gives. Both sides show one draft, which is kept as JSON text.
function Invoke({ id, namespace, schema, routes }) {
  const properties = propertiesOf(schema);
  const example = schema?.examples?.[0];
  const [typed, setTyped] = useDraft(`call ${namespace} ${id}`, JSON.stringify(example ?? {}, null, 2));
  const [raw, setRaw] = useState({}); // fields whose text is no value yet
  const [mistakes, setMistakes] = useState({});
  const [run, setRun] = useState(null);
  const abort = useRef(null);
  let payload, broken = "";
  try {
    payload = JSON.parse(typed);
  } catch (error) {
    broken = `This is not JSON: ${error.message}`;
  }
  const isObject = payload !== null && typeof payload === "object" && !Array.isArray(payload);
  const fields = { ...(isObject && Object.fromEntries(Object.entries(payload).map(([name, value]) => [name, textFrom(value)]))), ...raw };
  const onInput = (name, text) => {
    const next = { ...(isObject && payload) }, pending = { ...raw }, wrong = { ...mistakes };
    delete pending[name];
    delete wrong[name];
    const property = properties.find((row) => row.name === name);
    if (text === "" && !(property.isRequired && property.schema.type === "string")) delete next[name];
    else {
      try {
        next[name] = property.schema.enum ? property.schema.enum.find((value) => textFrom(value) === text) : valueFrom(property.schema, text);
      } catch (error) {
        pending[name] = text;
        wrong[name] = error.message;
      }
    }
    setRaw(pending);
    setMistakes(wrong);
    setTyped(JSON.stringify(next, null, 2));
  };
  const submit = async (event) => {
    event?.preventDefault();
    if (broken || Object.keys(raw).length || run?.isRunning) return;
    const begun = performance.now();
    const state = { isRunning: true, items: [], progress: null };
    const show = () => setRun({ ...state, took: performance.now() - begun });
    setMistakes({});
    show();
    abort.current = new AbortController();
    try {
      await stream({ function_id: id, payload, timeout_ms: 600_000, ...(namespace && { namespace }) }, (line) => {
        if (line.item) state.items = [...state.items, line.item];
        else if (line.progress) state.progress = line.progress;
        else state.answer = line;
        show();
      }, abort.current.signal);
    } catch (error) {
      state.answer ??= error.name === "AbortError" ? { error: { code: "canceled", message: "You have canceled it; the function was told so." } } : { error: { code: error.code ?? "offline", message: error.message } };
    }
    state.isRunning = false;
    show();
    setMistakes(mistakesIn(state.answer?.error));
  };
  const onKeyDown = (event) => (event.ctrlKey || event.metaKey) && event.key === "Enter" && submit();
  return html`<form class="invoke" onSubmit=${submit} onKeyDown=${onKeyDown} aria-label="Call this function">
    <div class=${properties.length ? "two" : ""}>
      ${properties.length > 0 && html`<${Form} schema=${schema} fields=${fields} mistakes=${mistakes} onInput=${onInput} />`}
      <label class="payload">Payload<textarea rows=${Math.max(5, Math.min(18, typed.split("\n").length + 1))} spellcheck="false" aria-invalid=${broken !== ""} value=${typed}
        onInput=${(event) => (setRaw({}), setMistakes({}), setTyped(event.target.value))} />${broken && html`<span class="bad-text" role="alert">${broken}</span>`}</label></div>
    <div class="buttons"><button class="primary" disabled=${session.value.read_only || broken !== "" || run?.isRunning} title=${session.value.read_only ? "this console is read-only" : "Ctrl Enter"}>Call</button>
      ${run?.isRunning && html`<button type="button" onClick=${() => abort.current.abort()}>Cancel</button>`}
      ${!broken && html`<details class="snippets"><summary>Copy as…</summary><ul>${snippets(id, payload, routes).map(([label, code]) => html`<li key=${label}><span class="quiet">${label}</span> <code>${code}</code> <${Copy} text=${code} /></li>`)}</ul></details>`}
      ${session.value.read_only && html`<span class="quiet">This console is read-only.</span>`}</div>
    ${run && html`<${Outcome} run=${run} command=${terminal(id, payload)} />`}
  </form>`;
}

// The sentences about single fields in a refusal, by field.
function mistakesIn(error) {
  const found = error?.details?.mistakes ?? (error?.details?.path ? [error.details] : []);
  return Object.fromEntries(found.filter((mistake) => mistake.path).map((mistake) => {
    const name = String([mistake.path].flat()[0]).replace(/^[$/.]+/, "").split(/[./[]/)[0];
    return [name, mistake.message ?? (mistake.expected ? `must be ${mistake.expected}` : error.message)];
  }));
}

function Outcome({ run, command }) {
  const { answer, items, progress, isRunning, took } = run;
  const error = answer?.error;
  return html`<section class="outcome" aria-label="Result" aria-live="polite">
    <div class="head-line">${isRunning ? html`<${Badge}>running<//>` : error ? html`<${Badge} kind="bad">${error.code}<//>` : html`<${Badge} kind="good">ok<//>`}
      <span class="quiet">${duration(took)}</span>${items.length > 0 && html`<span class="quiet">${plural(answer?.items ?? items.length, "item")}</span>`}
      ${answer?.trace_id && html`<a href=${href("/traces", { trace: answer.trace_id })}>its trace</a>`}</div>
    ${progress && isRunning && html`<div class="progress"><progress value=${progress.done} max=${progress.total ?? undefined} aria-label="Progress" /> <span>${progress.message ?? ""} ${progress.done}${progress.total ? ` of ${progress.total}` : ""}</span></div>`}
    ${items.length > 0 && html`<pre class="items" tabindex="0" aria-label="Items">${items.slice(-500).map((item) => JSON.stringify(item.cut ?? item.result)).join("\n")}</pre>`}
    ${error && html`<p class="bad-text">${error.message}</p>`}${error?.stacktrace && html`<pre tabindex="0">${error.stacktrace}</pre>`}
    ${answer && !error && (answer.result !== null || !items.length) && html`<${Json} value=${answer.cut === undefined ? answer.result : { isCut: true, ...answer }} command=${command} />`}
  </section>`;
}

function LastCalls({ id }) {
  const { data, error } = useQuery(`calls ${id}`, async () => {
    const { spans } = await listTraces({ name: `call ${id}`, search_all_spans: true, sort_by: "start_time", sort_order: "desc", limit: 60 });
    return spans.filter((span) => functionOf(span) === id && span.name.startsWith("call ")).slice(0, 20);
  }, { topics: ["traces"], pause: 250 });
  return html`<h2>Last calls</h2>${error && html`<${Failure} error=${error} />`}
    ${data?.length === 0 && html`<p class="quiet">None is recorded.</p>`}
    ${data?.length > 0 && html`<table><thead><tr><th>When</th><th>Status</th><th class="number">Took</th><th><span class="hidden">Trace</span></th></tr></thead><tbody>${data.map((span) => html`<tr key=${span.span_id}>
      <td><${Time} ms=${startOf(span)} /></td><td><${Badge} kind=${span.status === "error" ? "bad" : "good"}>${span.pending ? "running" : span.status}<//> <span class="bad-text">${span.status_description ?? ""}</span></td>
      <td class="number">${span.pending ? "" : duration(tookOf(span))}</td><td class="number"><a href=${href("/traces", { trace: span.trace_id, span: span.span_id })}>trace</a></td></tr>`)}</tbody></table>`}`;
}
