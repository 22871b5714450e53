// A worker in plain Node without any SDK: one JSON object a line on stdin and stdout, that is the whole protocol.
// Log lines go to stderr, since stdout is the wire.

const send = (message) => process.stdout.write(JSON.stringify(message) + "\n");

const handlers = {
  "greeter::hello": ({ name = "you" }) => ({ message: `Hello, ${name}!` }),
};

function answer({ invocation_id, function_id, data }) {
  try {
    return { invocation_id, function_id, result: handlers[function_id](data ?? {}) };
  } catch (error) {
    return { invocation_id, function_id, error: { code: "invocation_failed", message: error.message } };
  }
}

function receive(message) {
  if (message.type === "ping") send({ type: "pong" });
  if (message.type === "stop") process.exit(0);
  if (message.type === "invokefunction" && message.function_id in handlers) {
    const result = answer(message);
    if (message.invocation_id) send({ type: "invocationresult", ...result });
  }
}

// Split on "\n" only: Node's readline also cuts at U+2028, which is data inside a JSON string.
let rest = "";
process.stdin.setEncoding("utf8").on("data", (chunk) => {
  const lines = (rest + chunk).split("\n");
  rest = lines.pop();
  lines.filter((line) => line.trim()).forEach((line) => receive(JSON.parse(line)));
});

const about = { runtime: "node", version: process.version, name: process.env.III_WORKER_NAME, pid: process.pid };
send({ type: "invokefunction", function_id: "engine::workers::register", data: about, action: { type: "void" } });
for (const id of Object.keys(handlers)) {
  send({ type: "registerfunction", id, description: "Greet somebody by name." });
}
send({ type: "ready" });
