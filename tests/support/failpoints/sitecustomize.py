"""Lets a process die, or fail, at a named point of its own code. Python imports this by itself at its start.

Only where a fault test has put this folder on PYTHONPATH, and with FAILPOINT="ACT WHEN NAME COUNT" in the environment:
ACT is `kill` (SIGKILL to itself) or an exception's name to raise, WHEN is `before` or `after`, NAME a function's
qualified name (`PeerTable.promote`, `Connection.execute`), COUNT which of its runs since the token was there. The token
is the file that FAILPOINT_TOKEN names: whoever gets there takes it away, so that one process fails, once. An exception
has the words of FAILPOINT_TEXT.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

_EVENTS = {"before": ("call", "c_call"), "after": ("return", "c_return")}


class Failpoint:
    """One armed point. Called by the interpreter with every call and return."""

    def __init__(self, act: str, when: str, name: str, count: str) -> None:
        self.act = act
        self.events = _EVENTS[when]
        self.name = name
        self.left = int(count)
        self.token = os.environ["FAILPOINT_TOKEN"]

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event not in self.events:
            return
        name = frame.f_code.co_qualname if event in ("call", "return") else getattr(arg, "__qualname__", "")
        if name == self.name and os.path.exists(self.token):
            self.left -= 1
            if not self.left:
                self.fail()

    def fail(self) -> None:
        try:
            os.unlink(self.token)
        except FileNotFoundError:
            return
        if self.act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise getattr(builtins, self.act)(os.environ.get("FAILPOINT_TEXT", f"injected at {self.name}"))


if "FAILPOINT" in os.environ:
    _point = Failpoint(*os.environ["FAILPOINT"].split())
    threading.setprofile(_point)
    sys.setprofile(_point)
