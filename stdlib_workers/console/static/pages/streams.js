// Streams: their groups and items, and an event sent to a group.
import { call, go, href, html, param, plural, session, useDraft, useQuery, useState } from "../lib/core.js";
import { Copy, Empty, Failure, Head, Loading, Rows, act, text } from "../lib/parts.js";

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
  const { data, error } = useQuery(`group ${name} ${group}`, () => call("stream::list", { stream_name: name, group_id: group }), { every: 250 });
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
  const items = Array.isArray(data) ? data : [];
  return html`<div class="head-line"><h1>${name} / ${group}</h1><span class="quiet">${data.isCut ? "more than can be shown here" : plural(items.length, "item")}</span><${Copy} text=${`iii stream tail ${name} ${group}`} label="Copy as iii stream tail" /></div>
    <div class="items-box"><${Rows} rows=${items} height=${28} columns="minmax(0, 1fr)" label="Items" empty=${html`<${Empty} title="No item is in this group." />`} row=${(item) => html`<span class="mono">${text(item)}</span>`} /></div>
    <h2>Send an event</h2><form onSubmit=${send} aria-label="Send an event"><label class="payload">Type<br /><input value=${type} required onInput=${(event) => setType(event.target.value)} /></label>
      <label class="payload">Data<textarea rows="3" value=${typed} aria-invalid=${mistake !== ""} onInput=${(event) => setTyped(event.target.value)} /></label>
      ${mistake && html`<p class="bad-text" role="alert">${mistake}</p>`}<button class="primary" disabled=${session.value.read_only}>Send</button></form>`;
}
