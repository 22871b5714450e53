// The parts that pages are put together from.
import { ago, exact, html, signal, useEffect, useMemo, useRef, useState } from "./core.js";

// A time in milliseconds: relative, the exact one on hover.
export const Time = ({ ms }) => (ms ? html`<time datetime=${new Date(ms).toISOString()} title=${exact(ms)}>${ago(ms)}</time>` : null);

export function Copy({ text, label = "Copy" }) {
  const [isDone, setDone] = useState(false);
  useEffect(() => {
    const timer = isDone && setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(timer);
  }, [isDone]);
  const copy = async () => {
    await navigator.clipboard.writeText(typeof text === "function" ? text() : text);
    setDone(true);
  };
  return html`<button type="button" class="small" onClick=${copy}>${isDone ? "Copied" : label}</button>`;
}

export const Badge = ({ kind = "", children }) => html`<span class=${`badge ${kind}`}>${children}</span>`;

// What an empty view teaches: a sentence, and the command that comes next.
export const Empty = ({ title, command, children }) => html`
  <div class="empty">
    <p class="empty-title">${title}</p>
    ${children && html`<p>${children}</p>`}
    ${command && html`<p class="command"><code>${command}</code> <${Copy} text=${command} /></p>`}
  </div>`;

// Of a question that could not be answered.
export function Failure({ error }) {
  if (!error || error.code === "offline") return null;
  const worker = /It is the (\w+) worker's/.exec(error.message)?.[1];
  if (worker) return html`<${Empty} title=${`This needs the worker ${worker}.`} command=${`iii add ${worker}`}>A running project picks it up.<//>`;
  return html`<div class="failure" role="alert"><b>${error.code}</b> ${error.message}</div>`;
}

export const Loading = () => html`<p class="quiet loading">…</p>`;

export const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));

// A JSON value, indented; a long one is cut, and can be shown whole.
export function Json({ value, limit = 20_000, command }) {
  const [isWhole, setWhole] = useState(false);
  const isCut = value?.isCut;
  const all = useMemo(() => (isCut ? value.cut : JSON.stringify(value, null, 2) ?? "null"), [value]);
  const shown = isWhole || all.length <= limit ? all : all.slice(0, limit);
  return html`
    <div class="json">
      <div class="json-tools"><${Copy} text=${all} /></div>
      <pre tabindex="0" aria-label="JSON value">${shown}${shown.length < all.length || isCut ? "…" : ""}</pre>
      ${isCut && html`<p class="quiet">The first ${value.cut.length.toLocaleString("en")} of ${value.bytes.toLocaleString("en")} bytes.
        ${command && html` The whole: <code>${command}</code> <${Copy} text=${command} />`}</p>`}
      ${shown.length < all.length && html`<button class="small" onClick=${() => setWhole(true)}>Show all ${all.length.toLocaleString("en")} characters</button>`}
    </div>`;
}

// A list of any length: only the rows in sight exist. Arrow keys move, Enter opens. `onEnd`: the last row comes in sight.
export function Rows({ rows, height = 30, row, onOpen, label, header, empty, columns, keyOf = (item, index) => index, stick = false, onEnd }) {
  const box = useRef(null);
  const [view, setView] = useState({ top: 0, size: 600 });
  const [at, setAt] = useState(-1);
  const measure = () => box.current && setView({ top: box.current.scrollTop, size: box.current.clientHeight });
  useEffect(() => {
    const observer = new ResizeObserver(measure);
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (stick && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [rows, stick]);
  const first = Math.max(0, Math.floor(view.top / height) - 10);
  const last = Math.min(rows.length, Math.ceil((view.top + view.size) / height) + 10);
  useEffect(() => {
    if (onEnd && rows.length && last === rows.length && view.top > 0) onEnd();
  }, [last, rows.length]);
  const move = (to) => {
    const index = Math.max(0, Math.min(rows.length - 1, to));
    setAt(index);
    const top = index * height;
    if (top < box.current.scrollTop) box.current.scrollTop = top;
    if (top + height > box.current.scrollTop + view.size) box.current.scrollTop = top + height - view.size;
  };
  const onKeyDown = (event) => {
    if (event.target !== box.current) return;
    const page = Math.max(1, Math.floor(view.size / height) - 1);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: rows.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      move(to);
    } else if (event.key === "Enter" && rows[at] && onOpen) onOpen(rows[at]);
  };
  return html`
    <div class="rows" style=${{ "--columns": columns }}>
      ${header && html`<div class="row head">${header}</div>`}
      <div class="rows-body" ref=${box} onScroll=${measure} onKeyDown=${onKeyDown} tabindex="0" role="list" aria-label=${label}>
        ${rows.length === 0 && empty}
        <div style=${{ height: `${rows.length * height}px`, position: "relative" }} role="presentation">
          ${rows.slice(first, last).map((item, offset) => {
            const index = first + offset;
            return html`<div key=${keyOf(item, index)} role="listitem" aria-setsize=${rows.length} aria-posinset=${index + 1}
              class=${`row ${index === at ? "at" : ""} ${onOpen ? "opens" : ""}`}
              style=${{ position: "absolute", top: `${index * height}px`, height: `${height}px` }}
              onClick=${(event) => !event.target.closest("a,button") && (setAt(index), onOpen?.(item))}>${row(item)}</div>`;
          })}
        </div>
      </div>
    </div>`;
}

// A small line of values over time.
export function Spark({ values, label, width = 72, height = 18, most }) {
  const top = most ?? Math.max(...values, 1e-9);
  const step = width / Math.max(1, values.length - 1);
  const points = values.map((value, index) => `${(index * step).toFixed(1)},${(height - 1 - (value / top) * (height - 2)).toFixed(1)}`);
  return html`<svg class="spark" width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label=${label}>
    ${values.length > 1 && html`<polyline points=${points.join(" ")} />`}</svg>`;
}

export function Filter({ value, onInput, label = "Filter", placeholder = "Filter" }) {
  return html`<input type="search" class="filter" aria-label=${label} placeholder=${placeholder} value=${value}
    onInput=${(event) => onInput(event.target.value)} />`;
}

export const Head = ({ title, children }) => html`<header class="head-line"><h1>${title}</h1>${children}</header>`;

// A question before something that cannot be undone; `word`, if given, has to be typed.
const question = signal(null);
export const confirm = (text, { action = "Do it", word = "" } = {}) =>
  new Promise((resolve) => (question.value = { text, action, word, resolve }));
export function Confirm() {
  const dialog = useRef(null);
  const [typed, setTyped] = useState("");
  const asked = question.value;
  useEffect(() => {
    setTyped("");
    if (asked && !dialog.current.open) dialog.current.showModal();
  }, [asked]);
  if (!asked) return null;
  const end = (answer) => {
    question.value = null;
    asked.resolve(answer);
  };
  return html`<dialog ref=${dialog} class="confirm" aria-label=${asked.text} onClose=${() => question.value && end(false)}>
    <form method="dialog" onSubmit=${(event) => (event.preventDefault(), typed === asked.word && end(true))}>
      <p>${asked.text}</p>
      ${asked.word && html`<label>Type <b>${asked.word}</b> to go on
        <input value=${typed} onInput=${(event) => setTyped(event.target.value)} autofocus /></label>`}
      <div class="buttons"><button type="button" onClick=${() => end(false)}>Cancel</button>
        <button class="primary" disabled=${typed !== asked.word}>${asked.action}</button></div>
    </form></dialog>`;
}

// A sentence about what was done, for a few seconds.
export const toast = signal(null);
export function say(text, kind = "") {
  toast.value = { text, kind };
  setTimeout(() => toast.value?.text === text && (toast.value = null), 5000);
}
export const Toast = () => html`<div class=${`toast ${toast.value?.kind ?? ""}`} role="status" aria-live="polite">${toast.value?.text}</div>`;

// Does something that changes the project, and says what came of it.
export async function act(done, work) {
  try {
    await work();
    if (done) say(done);
    return true;
  } catch (error) {
    say(error.message, "bad");
    return false;
  }
}

export const STATES = { ready: "good", starting: "busy", stopping: "busy", backoff: "warn", failed: "bad", stopped: "" };
