// The frame around the pages: menu, connection, palette, theme.
import { begin, call, connection, go, href, html, listen, place, refused, render, session, signal, useEffect, useLayoutEffect, useRef, useState } from "./lib/core.js";
import { Confirm, Copy, Toast } from "./lib/parts.js";
import { pages } from "./pages.js";

const theme = signal(localStorage.getItem("theme") ?? "");
const isPaletteOpen = signal(false);

function applyTheme() {
  if (theme.value) document.documentElement.dataset.theme = theme.value;
  else delete document.documentElement.dataset.theme;
}

function nextTheme() {
  theme.value = { "": "dark", dark: "light", light: "" }[theme.value];
  theme.value ? localStorage.setItem("theme", theme.value) : localStorage.removeItem("theme");
  applyTheme();
}

const WORDS = { live: "live", connecting: "connecting", lost: "the engine is away; this page waits for it" };

function App() {
  if (session.value === undefined) return null;
  if (session.value === null) return html`<${Locked} />`;
  const current = pages.find((page) => page.path === place.value.pathname);
  useEffect(() => {
    document.title = `${current?.title ?? "Not found"} · ${session.value.project} · iii`;
    document.querySelector("main")?.focus({ preventScroll: true });
  }, [current]);
  return html`
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), document.querySelector("main").focus())}>To the content</a>
    <nav class="menu" aria-label="Pages">
      <a class="brand" href="/"><img src="/icon.svg" alt="" width="22" height="22" /><span>${session.value.project}</span></a>
      <ul>${pages.map((page) => html`<li key=${page.path}><a href=${page.path} aria-current=${page === current ? "page" : undefined}>${page.title}</a></li>`)}</ul>
      <div class="foot">
        ${session.value.read_only && html`<span class="badge">read-only</span>`}
        <button class="small" onClick=${() => (isPaletteOpen.value = true)} aria-keyshortcuts="Control+K">Go to… <kbd>Ctrl K</kbd></button>
        <button class="small" onClick=${nextTheme}>Theme: ${theme.value || "system"}</button>
        <span class=${`link ${connection.value}`} role="status">${WORDS[connection.value]}</span>
        <span class="quiet">iii ${session.value.version}</span>
      </div>
    </nav>
    <main id="main" tabindex="-1">${current ? html`<${current.View} key=${current.path} />` : html`<${NotFound} />`}</main>
    ${isPaletteOpen.value && html`<${Palette} />`}
    <${Confirm} /><${Toast} />`;
}

const NotFound = () => html`<div class="empty"><p class="empty-title">There is no page at ${place.value.pathname}.</p><p><a href="/">Overview</a></p></div>`;

const Locked = () => html`
  <main class="locked"><img src="/icon.svg" alt="" width="44" height="44" />
    <h1>This browser is not let in</h1>
    <p>${refused.value || "Every browser is let in by a link of its own."}</p>
    <p>Print a new link where the project is:</p>
    <p class="command"><code>iii console</code> <${Copy} text="iii console" /></p>
  </main>`;

// Everything that has an address: pages, functions, workers, traces by id.
function Palette() {
  const dialog = useRef(null);
  const [typed, setTyped] = useState("");
  const [at, setAt] = useState(0);
  const [known, setKnown] = useState([]);
  // At once, not after the next paint: the keys that follow Control+K are meant for it.
  useLayoutEffect(() => dialog.current.showModal(), []);
  useEffect(() => {
    Promise.all([
      call("engine::functions::list", {}).then((found) => found.functions.map((row) => ({ name: row.function_id, kind: "function", to: href("/functions", { id: row.function_id, namespace: row.namespace === "default" ? "" : row.namespace }) }))),
      call("engine::workers::list", {}).then((found) => found.workers.map((row) => ({ name: row.name, kind: "worker", to: href("/workers", { name: row.name }) }))),
    ]).then((lists) => setKnown(lists.flat()), () => {});
  }, []);
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  const all = [...pages.map((page) => ({ name: page.title, kind: "page", to: page.path })), ...known];
  const found = all.filter((item) => words.every((word) => `${item.name} ${item.kind}`.toLowerCase().includes(word))).slice(0, 50);
  if (/^[0-9a-f]{32}$/.test(typed.trim())) found.unshift({ name: typed.trim(), kind: "trace", to: href("/traces", { trace: typed.trim() }) });
  const close = () => (isPaletteOpen.value = false);
  const open = (item) => item && (close(), go(item.to));
  const onKeyDown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      const next = Math.max(0, Math.min(found.length - 1, at + step));
      setAt(next);
      document.getElementById(`palette-${next}`)?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter") open(found[at]);
  };
  return html`<dialog ref=${dialog} class="palette" aria-label="Go to" onClose=${close} onClick=${(event) => event.target === dialog.current && close()}>
    <input type="text" role="combobox" aria-label="Page, function, worker or trace id" aria-expanded="true" aria-controls="palette-list"
      aria-activedescendant=${found[at] ? `palette-${at}` : undefined} placeholder="Page, function, worker, trace id" value=${typed} autofocus
      onInput=${(event) => (setTyped(event.target.value), setAt(0))} onKeyDown=${onKeyDown} />
    <ul id="palette-list" role="listbox" aria-label="Places">${found.map((item, index) => html`
      <li key=${item.kind + item.name} id=${`palette-${index}`} role="option" aria-selected=${index === at} onClick=${() => open(item)}>
        <span>${item.name}</span><span class="quiet">${item.kind}</span></li>`)}</ul>
  </dialog>`;
}

addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k" && session.value) {
    event.preventDefault();
    isPaletteOpen.value = !isPaletteOpen.value;
  }
  if (event.key === "/" && !/INPUT|TEXTAREA|SELECT/.test(document.activeElement.tagName)) {
    const filter = document.querySelector("main input[type=search]");
    if (filter) event.preventDefault(), filter.focus();
  }
});

applyTheme();
render(html`<${App} />`, document.getElementById("app"));
const start = () =>
  begin().then(
    () => session.value && listen(),
    (error) => {
      if (error.code === "offline") setTimeout(start, 500);
      else session.value = null;
    },
  );
start();
