"""A flow on the published Node SDK: plain functions, through a kill of everything."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from iii import InvocationError
from tests.support import official
from tests.support.live_project import BOUND, Project, free_ports, project

pytestmark = list(official.needs_node)
BODY = """
import { registerWorker } from 'iii-sdk'
const worker = registerWorker(process.env.III_URL, { workerName: 'orders' })
worker.registerFunction('orders::fulfil', async (order, meta) => {
  const op = (name, args) => worker.trigger({function_id: `flow::${name}`, payload: {flow: meta['iii.flow'], ...args}})
  console.error('@ turn')
  const paid = await op('call', {function_id: 'pay::charge', payload: order, undo: 'pay::refund'})
  const seen = await op('begin', {name: 'label'})
  if (!seen.done) console.error('@ labels')
  const label = seen.done ? seen.result : await op('end', {name: 'label', result: `order ${order.id}`})
  const by = await op('wait', {event: 'approved', timeout_ms: 259_200_000})
  return {paid, label, by}
})
worker.registerTrigger({type: 'flow', function_id: 'orders::fulfil', config: {id_field: 'id', code: 'v1'}})
"""
PAY = """
def charge(order):
    say("charged")
    return order["amount"]
worker.register_function("pay::charge", charge)
"""


def until(running: Project, run: str, state: str) -> dict[str, Any]:
    give_up = time.monotonic() + BOUND
    while time.monotonic() < give_up:
        try:
            shown: dict[str, Any] = running.call("flow::get", {"run": run})
        except InvocationError:
            continue
        if shown["state"] == state:
            return shown
    raise TimeoutError(shown)


def test_a_flow_of_plain_functions_goes_on_when_everything_was_killed(tmp_path: Path) -> None:
    (tmp_path / "orders.mjs").write_text(BODY)
    (tmp_path / "node_modules").symlink_to(official.node_with() / "node_modules")
    toml = f"""
[engine]
listen = "127.0.0.1:{free_ports("sdk")["sdk"]}"
[workers.flow]
[workers.pay]
run = "pay.py"
[workers.orders]
run = "node orders.mjs"
"""
    with project(tmp_path, toml, {"pay": PAY}) as running:
        give_up = time.monotonic() + BOUND
        while True:
            try:
                start = {"function_id": "orders::fulfil", "payload": {"id": "o7", "amount": 5}}
                assert running.call("flow::start", start) == {"run": "o7", "started": True}
                break
            except InvocationError:
                assert time.monotonic() < give_up  # the worker has not bound its flow yet
        until(running, "o7", "parked")
        for name in ("flow", "orders", "pay"):
            os.kill(running.pid_of(name), signal.SIGKILL)
        running.kill()
        running.start()
        assert until(running, "o7", "parked")["step_count"] == 3
        running.call("flow::signal", {"run": "o7", "event": "approved", "payload": "ada"})
        assert until(running, "o7", "completed")["result"] == {"paid": 5, "label": "order o7", "by": "ada"}
        assert (running.said("charged"), len(running.said("@ labels"))) == (["charged"], 1)
        assert len(running.said("@ turn")) == 2
