// A shared worker: one stream of events for all open pages of this browser, which opens six connections to a server and
// no more. Pages say `listen` and `leave` with a topic ("" is what every page hears of), and hear `hello`, `changed`,
// `traces`, `log` and `lost`.
const streams = new Map(); // topic -> { ports, source, isOpen }

function open(topic, stream) {
  const source = new EventSource(`/_console/events${topic && `?topic=${topic}`}`);
  const tell = (event, data) => stream.ports.forEach((port) => port.postMessage({ topic, event, data }));
  stream.source = source;
  source.addEventListener("hello", () => {
    stream.isOpen = true;
    tell("hello");
  });
  for (const name of ["changed", "traces", "log"]) source.addEventListener(name, (event) => tell(name, event.data));
  source.onerror = () => {
    stream.isOpen = false;
    tell("lost");
    // Refused, by an engine that is starting or without a session: the browser does not try again by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => streams.get(topic) === stream && open(topic, stream), 500);
  };
}

function listen(port, topic) {
  const known = streams.get(topic);
  const stream = known ?? { ports: new Set(), isOpen: false };
  stream.ports.add(port);
  if (stream.isOpen) port.postMessage({ topic, event: "hello" });
  if (known) return;
  streams.set(topic, stream);
  open(topic, stream);
}

function leave(port, topic) {
  const stream = streams.get(topic);
  if (!stream?.ports.delete(port) || stream.ports.size) return;
  stream.source.close();
  streams.delete(topic);
}

self.onconnect = ({ ports: [port] }) => {
  port.onmessage = ({ data }) => {
    if (data.listen !== undefined) listen(port, data.listen);
    else if (data.leave !== undefined) leave(port, data.leave);
    // A page holds this lock for as long as it is there; nothing else tells that it has gone.
    else navigator.locks.request(data.page, () => [...streams.keys()].forEach((topic) => leave(port, topic)));
  };
};
