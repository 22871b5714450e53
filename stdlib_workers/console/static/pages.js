// The pages in the order of the menu. A page is a module with `path`, `title` and `View`, and a line here.
import * as overview from "./pages/overview.js";
import * as workers from "./pages/workers.js";
import * as functions from "./pages/functions.js";
import * as traces from "./pages/traces.js";
import * as logs from "./pages/logs.js";
import * as queues from "./pages/queues.js";

export const pages = [overview, workers, functions, traces, logs, queues];
