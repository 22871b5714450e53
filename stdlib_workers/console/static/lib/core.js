// What every page imports: markup, signals, calls, live events, addresses.
import { h, render, Fragment } from "../vendor/preact.mjs";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/hooks.mjs";
import htm from "../vendor/htm.mjs";
import { batch, computed, effect, signal } from "../vendor/signals.mjs";

export { Fragment, batch, computed, effect, render, signal, useEffect, useLayoutEffect, useMemo, useRef, useState };
export const html = htm.bind(h);

// The session and the connection

export const session = signal(undefined); // what console::about says; null without a session
export const connection = signal("connecting"); // connecting | live | lost
export const refused = signal(""); // why there is no session

export class CallError extends Error {
  constructor({ code, message, details, stacktrace }) {
    super(message);
    Object.assign(this, { code, details, stacktrace });
  }
}

async function ask(path, body) {
  let response;
  try {
    const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    response = await fetch(`/_console/${path}`, { credentials: "same-origin", ...options });
  } catch {
    throw new CallError({ code: "offline", message: "the engine does not answer; the page comes back by itself" });
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({ error: { code: "failed", message: `HTTP ${response.status}` } }));
  if (response.status === 401) {
    refused.value = told.error.message;
    session.value = null;
    port?.postMessage({ leave: "" });
  }
  throw new CallError(told.error ?? { code: "failed", message: `HTTP ${response.status}` });
}

// Redeems the key of the address, which then leaves it, or finds the session that is there.
export async function begin() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (key) history.replaceState(null, "", location.pathname + location.search);
  if (key) {
    try {
      session.value = await (await ask("session", { key })).json();
      return;
    } catch (error) {
      if (error.code !== "wrong_key") throw error;
    }
  }
  const why = refused.value;
  session.value = await (await ask("session")).json().catch(() => null);
  refused.value = why;
}

// Calls a function; gives its result. A result that is too long is {cut, bytes}, with `isCut`.
export async function call(function_id, payload, options = {}) {
  const answer = await (await ask("call", { function_id, payload, ...options })).json();
  if (answer.error) throw Object.assign(new CallError(answer.error), { traceId: answer.trace_id });
  return answer.cut === undefined ? answer.result : { isCut: true, ...answer };
}

// Calls a function whose items come one by one; `tell` gets {item}, {progress} and at last {result} or {error}.
export async function stream(body, tell, abort) {
  const response = await fetch("/_console/stream", { method: "POST", body: JSON.stringify(body), signal: abort });
  if (!response.ok) throw new CallError((await response.json()).error);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    batch(() => lines.filter(Boolean).forEach((line) => tell(JSON.parse(line))));
  }
}

const listeners = new Map(); // topic -> functions
export function onTopic(topic, listener) {
  const all = listeners.get(topic) ?? listeners.set(topic, new Set()).get(topic);
  all.add(listener);
  return () => all.delete(listener);
}
const tell = (topic, event) => [...(listeners.get(topic) ?? [])].forEach((listener) => listener(event));

// What becomes of an event of the stream that every page hears.
const HEARD = {
  hello() {
    connection.value = "live";
    tell("back");
  },
  changed: (data) => JSON.parse(data).forEach((topic) => tell(topic)),
  traces(data) {
    const ids = JSON.parse(data); // none: any of them
    tell("traces");
    for (const topic of [...listeners.keys()]) if (topic.startsWith("trace ") && (!ids.length || ids.includes(topic.slice(6)))) tell(topic);
  },
  log: (data) => tell("log", JSON.parse(data)),
  lost() {
    connection.value = "lost";
    ask("session").catch(() => null); // is there still one?
  },
};

let port = null; // to the shared worker
export function listen() {
  port = new SharedWorker("/lib/events.js").port;
  port.onmessage = ({ data: { topic, event, data } }) => {
    if (!session.value) return;
    if (!topic) HEARD[event](data);
    else if (event !== "lost") tell(topic);
  };
  const id = crypto.randomUUID();
  navigator.locks.request(id, () => {
    port.postMessage({ page: id });
    return new Promise(() => {}); // until this page is gone
  });
  port.postMessage({ listen: "" });
}

// Hears of what only a page that shows it is told of, until the function that this returns is called.
export function listenTo(topic) {
  port.postMessage({ listen: topic });
  return () => port.postMessage({ leave: topic });
}

// A question that is asked again when one of `topics` changes, the connection is back, and each `every` ms while the page
// is seen. The first change is asked about at once, those that follow at most each `pause` ms, a
// quarter of the time. The last answer stays until there is another one.
export function useQuery(key, question, { topics = [], every = 0, pause = 0 } = {}) {
  const [state, setState] = useState({ data: undefined, error: null, key: null });
  const latest = useRef({});
  latest.current.question = question;
  const again = useRef(() => {});
  useEffect(() => {
    let isOver = false, isAsking = false, isDue = false;
    let next = 0; // when a change may be asked about again
    const run = async (isTold = true) => {
      if (isAsking) return void (isDue ||= isTold);
      isAsking = true;
      isDue = false;
      if (isTold) await new Promise((resolve) => setTimeout(resolve, next - performance.now()));
      const begun = performance.now();
      try {
        const data = await latest.current.question();
        if (!isOver) setState({ data, error: null, key });
      } catch (error) {
        if (!isOver) setState((before) => ({ ...before, data: before.key === key ? before.data : undefined, error, key }));
      }
      if (isTold) next = Math.max(begun + pause, begun + 4 * (performance.now() - begun));
      isAsking = false;
      if (isDue && !isOver) run();
    };
    again.current = () => (isAsking ? (isDue = true) : run(false));
    run(false);
    const ends = ["back", ...topics].map((topic) => onTopic(topic, () => run()));
    const timer = every && setInterval(() => document.hidden || connection.value !== "live" || run(false), every);
    return () => {
      isOver = true;
      ends.forEach((end) => end());
      clearInterval(timer);
    };
  }, [key]);
  return { ...state, data: state.key === key ? state.data : undefined, again: () => again.current() };
}

// Addresses

export const place = signal(new URL(location.href));
addEventListener("popstate", () => (place.value = new URL(location.href)));
export function go(url, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", url);
  place.value = new URL(location.href);
}
addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  const isPlain = !event.defaultPrevented && event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
  if (!link || !isPlain || link.origin !== location.origin || link.target) return;
  event.preventDefault();
  if (link.href !== location.href) go(link.href);
  scrollTo(0, 0);
});
export const param = (name) => place.value.searchParams.get(name) ?? "";
export function setParams(values, options = { replace: true }) {
  const url = new URL(place.value);
  for (const [name, value] of Object.entries(values)) value ? url.searchParams.set(name, value) : url.searchParams.delete(name);
  go(url, options);
}
export function href(path, values = {}) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value));
  return query.size ? `${path}?${query}` : path;
}

// What was typed stays, over a reload of the page as well.
export function useDraft(name, first) {
  const [text, setText] = useState(() => sessionStorage.getItem(name) ?? first);
  useEffect(() => setText(sessionStorage.getItem(name) ?? first), [name]);
  return [text, (value) => (setText(value), value === first ? sessionStorage.removeItem(name) : sessionStorage.setItem(name, value))];
}

// Whether a function is the engine's or a standard worker's.
const STANDARD = /^((action|bridge|configuration|console|cron|engine|flow|http|http_functions|iii|mcp|observability|queue|state|storage|stream)::|publish$)/;
export const isStandard = (function_id) => STANDARD.test(function_id);

// Times and sizes

export const now = signal(Date.now());
setInterval(() => document.hidden || (now.value = Date.now()), 1000);
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
export function ago(ms) {
  const seconds = Math.round((now.value - ms) / 1000);
  const size = Math.abs(seconds);
  if (size < 1) return "now";
  const [unit, name] = UNITS.find(([unit]) => size >= unit);
  return seconds < 0 ? `in ${Math.round(size / unit)} ${name}` : `${Math.floor(size / unit)} ${name} ago`;
}
const pad = (number, width = 2) => String(number).padStart(width, "0");
export function exact(ms) {
  const time = new Date(ms);
  const day = `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())}`;
  return `${day} ${clock(ms)}`;
}
export function clock(ms) {
  const time = new Date(ms);
  return `${pad(time.getHours())}:${pad(time.getMinutes())}:${pad(time.getSeconds())}.${pad(time.getMilliseconds(), 3)}`;
}
export function duration(ms) {
  if (ms == null || Number.isNaN(ms)) return "";
  if (ms < 0.1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
  return `${Math.floor(ms / 3_600_000)} h ${Math.round((ms % 3_600_000) / 60_000)} min`;
}
export function size(bytes) {
  if (bytes == null) return "";
  for (const [unit, name] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) if (bytes >= unit) return `${(bytes / unit).toFixed(1)} ${name}`;
  return `${bytes} B`;
}
export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
