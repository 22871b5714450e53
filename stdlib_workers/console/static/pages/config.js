// iii.toml as it is now: what holds, where each value comes from, and its mistakes as `iii check` says them.
import { call, href, html, param, plural, setParams, useQuery } from "../lib/core.js";
import { Badge, Copy, Empty, Failure, Filter, Head, Loading, text } from "../lib/parts.js";

export const path = "/config";
export const title = "Config";

export function View() {
  const { data, error } = useQuery("config", () => call("engine::config::list", {}), { topics: ["workers"], every: 250 });
  if (!data) return html`<${Head} title=${title} />${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  const wanted = param("filter").toLowerCase(), isWritten = param("written") === "1";
  const shown = data.values.filter((row) => (!isWritten || row.source !== "default") && `${row.key} ${text(row.value)} ${origin(row)}`.toLowerCase().includes(wanted));
  const tables = [...Map.groupBy(shown, (row) => row.table)];
  const isHeld = data.mistakes.length > 0;
  return html`
    <${Head} title=${title}><span class="quiet mono">${data.file}</span>${data.profile && html`<${Badge}>profile ${data.profile}<//>`}
      ${isHeld ? html`<${Badge} kind="bad">${plural(data.mistakes.length, "mistake")}<//>` : html`<${Badge} kind="good">valid<//>`}<span class="spring" />
      <label><input type="checkbox" checked=${isWritten} onChange=${(event) => setParams({ written: event.target.checked ? "1" : "" })} /> only what is written</label>
      <${Filter} value=${param("filter")} onInput=${(filter) => setParams({ filter })} label="Filter values" placeholder="Filter by key, value, source" /><//>
    ${isHeld && html`<section aria-label="Mistakes">${data.mistakes.map((mistake) => html`<div class="trouble" key=${mistake.text}>
        <b class="mono">${[mistake.file, mistake.line, mistake.column].filter(Boolean).join(":")}</b> <span>${mistake.message}</span> ${mistake.hint && html`<span class="quiet">${mistake.hint}</span>`}</div>`)}
      <p class="quiet">The engine goes on with what it has read before. <code>iii check</code> <${Copy} text="iii check" /></p></section>`}
    ${data.cautions.length > 0 && html`<section aria-label="Cautions">${data.cautions.map((caution) => html`<p key=${caution}><${Badge} kind="warn">caution<//> ${caution}</p>`)}</section>`}
    ${!tables.length && html`<${Empty} title=${data.values.length ? "No value fits." : "Nothing can be read from the file."} command="iii check --values" />`}
    ${tables.map(([table, rows]) => html`<section key=${table} aria-label=${`[${table}]`}><div class="head-line"><h2 class="mono">[${table}]</h2>${workerOf(table) && html`<a href=${href("/workers", { name: workerOf(table) })}>Worker</a>`}</div>
      <div class="table-scroll"><table class="config"><tbody>${rows.map((row) => html`<tr key=${row.key}>
        <td class="mono" title=${row.description}>${row.key.slice(table.length + 1)}</td><td class="mono">${row.value === "[REDACTED]" ? html`<${Badge}>secret<//>` : JSON.stringify(row.value)}</td>
        <td class="quiet">${origin(row)}</td></tr>`)}</tbody></table></div></section>`)}
    ${data.left_out > 0 && html`<p class="quiet">${data.left_out.toLocaleString("en")} more are in the file.</p>`}
    <p class="quiet">What the machine lacks: <code>iii doctor</code> <${Copy} text="iii doctor" /></p>`;
}

const workerOf = (table) => /^workers\.(.+?)(\.config)?$/.exec(table)?.[1];

const variable = ({ name, source }) => (source === "not set" ? `${name} is not set` : `${name} from ${source}`);
const origin = (row) => (row.source === "default" ? "default" : [`${row.file}:${row.line}`, ...(row.variables ?? []).map(variable)].join(", "));
