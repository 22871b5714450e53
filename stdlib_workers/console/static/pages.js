// The pages in the order of the menu. A page is a module with `path`, `title` and `View`, and a line here.
import * as overview from "./pages/overview.js";
import * as map from "./pages/map.js";
import * as workers from "./pages/workers.js";
import * as functions from "./pages/functions.js";
import * as traces from "./pages/traces.js";
import * as logs from "./pages/logs.js";
import * as queues from "./pages/queues.js";
import * as flows from "./pages/flows.js";
import * as triggers from "./pages/triggers.js";
import * as state from "./pages/state.js";
import * as streams from "./pages/streams.js";
import * as metrics from "./pages/metrics.js";
import * as config from "./pages/config.js";

export const pages = [overview, map, workers, functions, traces, logs, queues, flows, triggers, state, streams, metrics, config];
