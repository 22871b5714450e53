// The state: scopes, keys, values; changed by compare-and-set, so that nobody's change is lost.
import { call, go, href, html, listenTo, param, plural, session, setParams, useDraft, useEffect, useQuery, useRef, useState } from "../lib/core.js";
import { Badge, Copy, Empty, Failure, Filter, Head, Loading, Rows, act, confirm, text } from "../lib/parts.js";

export const path = "/state";
export const title = "State";
const MOST = 10_000; // keys of a scope that are listed

async function keysOf(scope) {
  const entries = [];
  let cursor = null;
  do {
    const page = await call("state::list_entries", { scope, limit: 1000, ...(cursor && { cursor }) });
    entries.push(...page.entries);
    cursor = page.next_cursor;
  } while (cursor && entries.length < MOST);
  return { entries: entries.sort((one, other) => (one.key < other.key ? -1 : 1)), isCut: Boolean(cursor) };
}

export function View() {
  const { data: scopes, error } = useQuery("scopes", () => call("state::list_groups", {}).then((found) => found.groups), { topics: ["state"], pause: 100 });
  const scope = param("scope");
  useEffect(() => listenTo("state"), []);
  if (!scopes) return html`<${Head} title=${title} />${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  return html`
    <${Head} title=${title}><span class="quiet">${plural(scopes.length, "scope")}</span>
      <select aria-label="Scope" value=${scope} onChange=${(event) => go(href("/state", { scope: event.target.value }))}><option value="">choose a scope</option>
        ${[...new Set([...scopes, ...(scope ? [scope] : [])])].map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select><span class="spring" />
      <${Filter} value=${param("filter")} onInput=${(filter) => setParams({ filter })} label="Filter keys" placeholder="Filter keys" /><//>
    ${scope ? html`<${Scope} key=${scope} scope=${scope} />` : scopes.length
      ? html`<table><thead><tr><th>Scope</th></tr></thead><tbody>${scopes.map((name) => html`<tr key=${name}><td><a href=${href("/state", { scope: name })}>${name}</a></td></tr>`)}</tbody></table>`
      : html`<${Empty} title="Nothing is kept yet." command="iii state set users ada '{&quot;age&quot;: 36}'" />`}`;
}

function Scope({ scope }) {
  const { data, error } = useQuery(`scope ${scope}`, () => keysOf(scope), { topics: ["state"], pause: 100 });
  const wanted = param("filter").toLowerCase(), key = param("key");
  if (!data) return error ? html`<${Failure} error=${error} />` : html`<${Loading} />`;
  const shown = data.entries.filter((entry) => entry.key.toLowerCase().includes(wanted));
  const to = (entry) => href("/state", { scope, filter: param("filter"), key: entry.key });
  return html`<div class="split"><div class="side">
      ${data.isCut && html`<p class="quiet">The first ${MOST.toLocaleString("en")} keys.</p>`}
      <${Rows} rows=${shown} height=${44} columns="minmax(0, 1fr)" label="Keys" keyOf=${(entry) => entry.key} onOpen=${(entry) => go(to(entry))}
        empty=${html`<${Empty} title=${data.entries.length ? "No key fits." : "No key is in this scope."} command=${`iii state list ${scope}`} />`}
        row=${(entry) => html`<a class=${`name ${entry.key === key ? "chosen" : ""}`} href=${to(entry)}><b>${entry.key}</b><span class="quiet mono">${text(entry.value)?.slice(0, 200)}</span></a>`} /></div>
    <div class="detail">${key ? html`<${Value} key=${`${scope} ${key}`} scope=${scope} name=${key} />` : html`<${Empty} title="Choose a key." command=${`iii state watch ${scope}`} />`}</div></div>`;
}

function Value({ scope, name }) {
  const { data, error, again } = useQuery(`value ${scope} ${name}`, () => call("state::get_entry", { scope, key: name }), { topics: ["state"], pause: 100 });
  const [edit, setEdit] = useDraft(`state ${scope} ${name}`, "");
  const [mistake, setMistake] = useState("");
  const [before, setBefore] = useState(null); // the value before the last change that was seen
  const seen = useRef(undefined);
  const shown = data?.isCut ? data.cut : data && JSON.stringify(data.value, null, 2);
  useEffect(() => {
    if (shown !== undefined && seen.current !== undefined && seen.current !== shown) setBefore(seen.current);
    if (shown !== undefined) seen.current = shown;
  }, [shown]);
  if (!data) return error ? html`<${Failure} error=${error} />` : html`<${Loading} />`;
  const isGone = !data.isCut && !data.version;
  const draft = edit && JSON.parse(edit); // {text, version}
  const disabled = session.value.read_only;
  const save = async () => {
    let value;
    try {
      value = JSON.parse(draft.text);
    } catch (problem) {
      return setMistake(`This is not JSON: ${problem.message}`);
    }
    setMistake("");
    try {
      await call("state::set", { scope, key: name, value, if_version: draft.version });
      setEdit("");
      again();
    } catch (problem) {
      setMistake(problem.code === "offline" ? problem.message : `Not written: ${problem.message}`);
    }
  };
  const remove = async () => {
    if (await confirm(`Delete ${name} of ${scope}? Its value cannot be had back.`, { action: "Delete" })) await act("deleted", () => call("state::delete", { scope, key: name }));
  };
  return html`<div class="head-line"><h1 class="mono">${name}</h1>${isGone ? html`<${Badge} kind="warn">deleted<//>` : html`<span class="quiet">version ${data.version}</span>`}
      <span class="spring" />${shown && html`<${Copy} text=${shown} />`}
      ${!draft && !data.isCut && html`<button class="small" disabled=${disabled} onClick=${() => setEdit(JSON.stringify({ text: isGone ? "{}" : shown, version: data.version ?? 0 }))}>Edit</button>`}
      <button class="small" disabled=${disabled || isGone} onClick=${remove}>Delete</button></div>
    ${draft ? html`<label class="payload">Value<textarea rows=${Math.max(6, Math.min(24, draft.text.split("\n").length + 1))} spellcheck="false" value=${draft.text} aria-invalid=${mistake !== ""}
          onInput=${(event) => setEdit(JSON.stringify({ ...draft, text: event.target.value }))} /></label>
        ${!data.isCut && (data.version ?? 0) !== draft.version && html`<p class="failure" role="alert">It was changed meanwhile: saving is refused. <button class="small" onClick=${() => setEdit(JSON.stringify({ ...draft, version: data.version ?? 0 }))}>Take mine over the new one</button></p>`}
        ${mistake && html`<p class="bad-text" role="alert">${mistake}</p>`}
        <div class="buttons"><button class="primary" disabled=${disabled} onClick=${save}>Save</button><button onClick=${() => (setEdit(""), setMistake(""))}>Cancel</button></div><h2>Now</h2>` : null}
    ${before !== null && !isGone ? html`<${Diff} before=${before} after=${shown} onClose=${() => setBefore(null)} />` : html`<pre tabindex="0" aria-label="Value">${isGone ? "" : shown}</pre>`}`;
}

// The lines of two texts, those that differ marked.
function Diff({ before, after, onClose }) {
  const old = before.split("\n"), fresh = after.split("\n");
  let head = 0, tail = 0;
  while (head < Math.min(old.length, fresh.length) && old[head] === fresh[head]) head += 1;
  while (tail < Math.min(old.length, fresh.length) - head && old.at(-1 - tail) === fresh.at(-1 - tail)) tail += 1;
  const line = (kind, sign) => (content, index) => html`<span key=${`${kind}${index}`} class=${`line ${kind}`}>${sign} ${content}\n</span>`;
  return html`<p class="quiet">Changed just now. <button class="small" onClick=${onClose}>Hide the change</button></p><pre tabindex="0" aria-label="Value">${[
    ...fresh.slice(0, head).map(line("same", " ")), ...old.slice(head, old.length - tail).map(line("gone", "-")),
    ...fresh.slice(head, fresh.length - tail).map(line("added", "+")), ...fresh.slice(fresh.length - tail).map(line("rest", " "))]}</pre>`;
}
