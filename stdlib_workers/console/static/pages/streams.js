// Streams: their groups and items, items changed and removed, and an event sent to a group.
import { call, go, href, html, param, plural, session, setParams, useDraft, useQuery, useState } from "../lib/core.js";
import { Badge, Copy, Empty, Failure, Head, Loading, Rows, act, confirm, text } from "../lib/parts.js";

export const path = "/streams";
export const title = "Streams";

export function View() {
  const { data, error } = useQuery("streams", () => call("stream::list_all", {}).then((found) => found.stream), { every: 300 });
  const name = param("stream"), group = param("group");
  if (!data) return html`<${Head} title=${title} />${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  return html`
    <${Head} title=${title}><span class="quiet">${plural(data.length, "stream")}</span><//>
    ${!data.length ? html`<${Empty} title="No stream has an item yet." command=${`iii trigger stream::set stream_name=chat group_id=room item_id=1 --json '{"data": {"text": "hi"}}'`} />` : html`
    <div class="split"><div class="side"><${Rows} rows=${data.flatMap((stream) => stream.groups.map((id) => ({ stream: stream.id, group: id })))} height=${30} columns="minmax(0, 1fr)" label="Groups"
        keyOf=${(row) => `${row.stream} ${row.group}`} onOpen=${(row) => go(href("/streams", row))} row=${(row) => html`<a class=${row.stream === name && row.group === group ? "chosen-span" : "span-name"} href=${href("/streams", row)}>${row.stream} / ${row.group}</a>`} /></div>
      <div class="detail stream">${name ? html`<${Group} key=${`${name} ${group}`} name=${name} group=${group} />` : html`<${Empty} title="Choose a group." command="iii stream tail chat room" />`}</div></div>`}`;
}

function Group({ name, group }) {
  const { data, error } = useQuery(`group ${name} ${group}`, () => call("stream::list_entries", { stream_name: name, group_id: group, limit: 1000 }), { every: 250 });
  const chosen = param("item");
  const [type, setType] = useDraft(`event type ${name}`, "");
  const [typed, setTyped] = useDraft(`event ${name}`, "{}");
  const [mistake, setMistake] = useState("");
  const send = (event) => {
    event.preventDefault();
    try {
      const body = JSON.parse(typed);
      setMistake("");
      act("sent", () => call("stream::send", { stream_name: name, group_id: group, type, data: body }));
    } catch (problem) {
      setMistake(`This is not JSON: ${problem.message}`);
    }
  };
  if (!data) return error ? html`<${Failure} error=${error} />` : html`<${Loading} />`;
  const items = data.entries ?? [];
  const item = items.find((entry) => entry.id === chosen);
  return html`<div class="head-line"><h1>${name} / ${group}</h1><span class="quiet">${data.isCut ? "more than can be shown here" : `${plural(items.length, "item")}${data.next_cursor ? ", the first" : ""}`}</span><${Copy} text=${`iii stream tail ${name} ${group}`} label="Copy as iii stream tail" /></div>
    <div class="items-box"><${Rows} rows=${items} height=${28} columns="minmax(80px, 25%) minmax(0, 1fr)" label="Items" keyOf=${(entry, index) => entry.id ?? index} onOpen=${(entry) => entry.id !== null && setParams({ item: entry.id })} empty=${html`<${Empty} title="No item is in this group." />`} row=${(entry) => html`${entry.id === null ? html`<span />` : html`<a class=${entry.id === chosen ? "chosen-span" : "span-name"} href=${href("/streams", { stream: name, group, item: entry.id })}>${entry.id}</a>`}<span class="mono">${text(entry.value).slice(0, 500)}</span>`} /></div>
    ${chosen && html`<${Item} key=${chosen} name=${name} group=${group} id=${chosen} now=${item} />`}
    <h2>Send an event</h2><form onSubmit=${send} aria-label="Send an event"><label class="payload">Type<br /><input value=${type} required onInput=${(event) => setType(event.target.value)} /></label>
      <label class="payload">Data<textarea rows="3" value=${typed} aria-invalid=${mistake !== ""} onInput=${(event) => setTyped(event.target.value)} /></label>
      ${mistake && html`<p class="bad-text" role="alert">${mistake}</p>`}<button class="primary" disabled=${session.value.read_only}>Send</button></form>`;
}

// What is typed stays while others write; `now` is the item as it is, none when it is gone.
function Item({ name, group, id, now }) {
  const shown = now && JSON.stringify(now.value, null, 2);
  const [draft, setDraft] = useDraft(`item ${name} ${group} ${id}`, "");
  const [mistake, setMistake] = useState("");
  const disabled = session.value.read_only;
  const place = { stream_name: name, group_id: group, item_id: id };
  const save = async (event) => {
    event.preventDefault();
    try {
      const data = JSON.parse(draft || shown);
      setMistake("");
      if (await act("written", () => call("stream::set", { ...place, data }))) setDraft("");
    } catch (problem) {
      setMistake(`This is not JSON: ${problem.message}`);
    }
  };
  const remove = async () => (await confirm(`Delete ${id} of ${name} / ${group}?`, { action: "Delete" })) && act("deleted", () => call("stream::delete", place));
  return html`<form class="invoke" onSubmit=${save} aria-label=${`Item ${id}`}><div class="head-line"><b class="mono">${id}</b>${!now && html`<${Badge} kind="warn">deleted<//>`}${draft && shown && html`<${Badge}>changed here<//>`}<span class="spring" />
      <button type="button" class="small" disabled=${disabled || !now} onClick=${remove}>Delete</button><button type="button" class="small" onClick=${() => setParams({ item: "" })}>Close</button></div>
    <label class="payload">Value<textarea rows="5" spellcheck="false" value=${draft || shown || ""} aria-invalid=${mistake !== ""} onInput=${(event) => setDraft(event.target.value)} /></label>
    ${mistake && html`<p class="bad-text" role="alert">${mistake}</p>`}
    <div class="buttons"><button class="primary" disabled=${disabled || !draft}>Save</button>${draft && html`<button type="button" onClick=${() => (setDraft(""), setMistake(""))}>Cancel</button>`}</div></form>`;
}
