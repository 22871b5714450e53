// The same call in other places: terminal, curl, Python, TypeScript, pytest.
const shell = (value) => (/^[\w@%+=:,./-]+$/.test(value) ? value : `'${value.replaceAll("'", `'\\''`)}'`);

function python(value) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, inner]) => `${JSON.stringify(name)}: ${python(inner)}`).join(", ")}}`;
  return JSON.stringify(value);
}

export const terminal = (id, payload) => `iii trigger ${shell(id)} --json ${shell(JSON.stringify(payload ?? {}))}`;

// `routes`: the http bindings of the function, as [method, url].
export const snippets = (id, payload, routes) => [
  ["iii trigger", terminal(id, payload)],
  ...routes.map(([method, url]) => ["curl", `curl -X ${method} ${shell(url)}${method === "GET" ? "" : ` --json ${shell(JSON.stringify(payload ?? {}))}`}`]),
  ["Python", `worker.trigger(${JSON.stringify(id)}, ${python(payload ?? {})})`],
  ["TypeScript", `await iii.trigger({ function_id: ${JSON.stringify(id)}, payload: ${JSON.stringify(payload ?? {})} });`],
  ["pytest", `def test_${id.replaceAll(/\W+/g, "_")}(iii):\n    assert iii.call(${JSON.stringify(id)}, ${python(payload ?? {})}) == ...`],
];
