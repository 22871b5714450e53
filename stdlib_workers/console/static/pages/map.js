// Who calls whom: triggers, functions by worker, and the calls of recent traces as edges.
import { call, href, html, isStandard, param, plural, setParams, useMemo, useQuery } from "../lib/core.js";
import { Empty, Failure, Head, Loading } from "../lib/parts.js";
import { functionOf, listTraces } from "../lib/spans.js";

export const path = "/map";
export const title = "Map";
const RECENT = 2000; // spans whose calls are edges

// What there is: nothing tells of bindings.
async function partsNow() {
  const [dagre, functions, triggers] = await Promise.all([
    import("../vendor/dagre.mjs"), // only this page needs it
    call("engine::functions::list", {}).then((found) => found.functions),
    call("engine::triggers::list", {}).then((found) => found.triggers.flatMap((type) => type.bindings)),
  ]);
  return { dagre, functions, triggers };
}
const spansNow = () => listTraces({ search_all_spans: true, sort_by: "start_time", sort_order: "desc", limit: RECENT }).then((found) => found.spans, () => []);

const WHAT = { http: (config) => `${config.http_method ?? "POST"} ${config.api_path}`, cron: (config) => config.expression, subscribe: (config) => config.topic,
  "durable:subscriber": (config) => config.topic, state: (config) => [config.scope, config.key].filter(Boolean).join("/") || "any", stream: (config) => config.stream_name };

// Nodes and edges; `focus`: only what is joined to this node.
function graphOf({ functions, triggers, spans }, focus) {
  const nodes = new Map(), edges = new Map();
  const link = (from, to, kind) => {
    const edge = edges.get(`${from} ${to}`) ?? edges.set(`${from} ${to}`, { from, to, kind, count: 0, failed: 0 }).get(`${from} ${to}`);
    return edge;
  };
  const workerOf = new Map(functions.map((row) => [row.function_id, row.worker_name]));
  const add = (id) => nodes.has(id) || nodes.set(id, { id, label: id, kind: "function", worker: workerOf.get(id) ?? "", to: href("/functions", { id }) });
  functions.filter((row) => !isStandard(row.function_id)).forEach((row) => add(row.function_id));
  for (const row of triggers.filter((row) => !isStandard(row.function_id))) {
    add(row.function_id);
    const label = `${WHAT[row.trigger_type]?.(row.config ?? {}) ?? row.trigger_type}`;
    nodes.set(row.id, { id: row.id, label, kind: "trigger", worker: row.trigger_type, to: href("/triggers", { filter: row.function_id }) });
    link(row.id, row.function_id, "trigger");
  }
  const byId = new Map(spans.map((span) => [span.span_id, span]));
  for (const span of spans) {
    const callee = functionOf(span);
    let parent = byId.get(span.parent_span_id);
    while (parent && (functionOf(parent) ?? callee) === callee) parent = byId.get(parent.parent_span_id); // an enqueue stands under its call
    const caller = parent && functionOf(parent);
    if (!callee || !caller || caller === callee || isStandard(caller)) continue;
    add(callee);
    const edge = link(caller, callee, "call");
    add(caller);
    edge.count += 1;
    if (span.status === "error") edge.failed += 1;
  }
  let kept = [...edges.values()].filter((edge) => nodes.has(edge.from) && nodes.has(edge.to));
  if (focus && nodes.has(focus)) {
    const near = new Set([focus]);
    kept = kept.filter((edge) => edge.from === focus || edge.to === focus);
    kept.forEach((edge) => near.add(edge.from).add(edge.to));
    for (const id of nodes.keys()) if (!near.has(id)) nodes.delete(id);
  }
  return { nodes: [...nodes.values()], edges: kept };
}

function placed({ Graph, layout }, { nodes, edges }) {
  const graph = new Graph().setGraph({ rankdir: "LR", nodesep: 14, ranksep: 70, marginx: 12, marginy: 12 }).setDefaultEdgeLabel(() => ({}));
  for (const node of nodes) graph.setNode(node.id, { width: Math.max(110, 7.4 * Math.min(node.label.length, 40) + 26), height: 42 });
  for (const edge of edges) graph.setEdge(edge.from, edge.to);
  layout(graph);
  return {
    ...graph.graph(),
    nodes: nodes.map((node) => ({ ...node, ...graph.node(node.id) })),
    edges: edges.map((edge) => ({ ...edge, points: graph.edge(edge.from, edge.to).points })),
  };
}

const line = (points) => points.map(({ x, y }, index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

export function View() {
  const { data: parts, error } = useQuery("map", partsNow, { topics: ["functions"], every: 300 });
  const { data: spans } = useQuery("map calls", spansNow, { topics: ["traces"], pause: 1000 });
  const data = useMemo(() => parts && spans && { ...parts, spans }, [parts, spans]);
  const focus = param("focus");
  const graph = useMemo(() => data && graphOf(data, focus), [data, focus]);
  // Laid out anew only when something came or went: nothing moves because a call was counted.
  const shape = graph && JSON.stringify([graph.nodes.map((node) => node.id), graph.edges.map((edge) => [edge.from, edge.to])]);
  const laid = useMemo(() => graph && placed(data.dagre, graph), [shape]);
  if (!laid) return html`<${Head} title=${title} />${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}`;
  if (!laid.nodes.length) return html`<${Head} title=${title} /><${Empty} title="No worker of yours offers a function yet." command="iii init" />`;
  const counts = new Map(graph.edges.map((edge) => [`${edge.from} ${edge.to}`, edge]));
  const chosen = laid.nodes.find((node) => node.id === focus);
  return html`
    <${Head} title=${title}><span class="quiet">${plural(laid.nodes.filter((node) => node.kind === "function").length, "function")}, ${plural(laid.edges.length, "connection")}</span>
      ${chosen && html`<button class="small" onClick=${() => setParams({ focus: "" })}>${chosen.label} ×</button><a href=${chosen.to}>${chosen.kind === "function" ? "Function" : "Trigger"}</a>
        ${chosen.kind === "function" && html`<a href=${href("/traces", { name: `call ${chosen.id}` })}>Traces</a><a href=${href("/logs", { worker: chosen.worker })}>Logs</a>`}`}
      <span class="spring" /><span class="quiet">edges: the calls of the last ${RECENT.toLocaleString("en")} spans</span><//>
    <div class="map" tabindex="0" role="region" aria-label="Map of functions"><svg width=${laid.width} height=${laid.height} viewBox=${`0 0 ${laid.width} ${laid.height}`}>
      <defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" /></marker></defs>
      ${laid.edges.map((edge) => {
        const { count, failed } = counts.get(`${edge.from} ${edge.to}`) ?? edge;
        return html`<g key=${`${edge.from} ${edge.to}`} class=${`edge ${edge.kind} ${failed ? "bad" : ""}`}><title>${plural(count, "call")}${failed ? `, ${failed} failed` : ""}</title>
          <path d=${line(edge.points)} marker-end="url(#arrow)" />${count > 0 && html`<text x=${edge.points[Math.floor(edge.points.length / 2)].x} y=${edge.points[Math.floor(edge.points.length / 2)].y - 5}>${count}</text>`}</g>`;
      })}
      ${laid.nodes.map((node) => html`<a key=${node.id} class=${`node ${node.kind} ${node.id === focus ? "chosen" : ""} ${isStandard(node.id) ? "standard" : ""}`} href=${href("/map", { focus: node.id === focus ? "" : node.id })}>
        <title>${node.label}</title><rect x=${node.x - node.width / 2} y=${node.y - node.height / 2} width=${node.width} height=${node.height} rx="7" />
        <text x=${node.x - node.width / 2 + 12} y=${node.y - 3}>${node.label.length > 40 ? `${node.label.slice(0, 39)}…` : node.label}</text><text class="under" x=${node.x - node.width / 2 + 12} y=${node.y + 12}>${node.worker}</text></a>`)}
    </svg></div>`;
}
