"""Which causes each call has: read from the call that made it or from its baggage, and written into its line. Pure.

Beside that, the running calls that an event, a job or a logged line has led to are remembered for a while: what their
workers write meanwhile has these causes too.
"""

from __future__ import annotations

from iii.engine.routing.causes import NONE, Causes, Loops, causes_in, joined, tag_of_call
from iii.engine.routing.invocation import Invocation
from iii.engine.routing.message_forms import callee_line
from iii.ids import mint_id
from iii.protocol.messages import InvokeFunction

# Calls with causes that may have written a logged line, and how long after their end: a worker's answer may be read
# before what it printed.
MAX_CAUSED, OUTPUT_TIMEOUT = 4096, 1.0


class CallCauses:
    """The causes of the calls under way. `engine` is how this engine signs what it writes."""

    def __init__(self) -> None:
        self.engine = tag_of_call(mint_id())
        self.loops = Loops()
        self._caused: dict[Invocation, float | None] = {}  # oldest first; since when it is known to have ended

    def before(self, parent: Invocation | None, message: InvokeFunction) -> Causes | None:
        """Return what led to a call: the running one that made it, or what its baggage says; None for nothing."""
        if parent is None:
            return causes_in(message.baggage)
        if parent.causes is None:
            parent.causes = NONE.then(self.engine, parent.depth, parent.function.id, parent.id)
        return parent.causes

    def go_on(self, invocation: Invocation, before: Causes, message: InvokeFunction) -> None:
        """Write into the call's line what leads to whatever it does."""
        parent = invocation.parent
        invocation.is_caused = parent is None or parent.is_caused
        if parent is None and before.engine != self.engine:
            invocation.depth = before.depth + 1  # its caller waits in another engine, behind a bridge
        invocation.causes = before.then(self.engine, invocation.depth, invocation.function.id, invocation.id)
        invocation.line = callee_line(message, invocation.causes)

    def remember(self, invocation: Invocation) -> None:
        """The call was admitted, and may write something from now on."""
        if invocation.is_caused:
            self._caused[invocation] = None
            if len(self._caused) > MAX_CAUSED:
                del self._caused[next(iter(self._caused))]

    def of_output(self, worker: str, instance: int, generation: int, now: float) -> Causes | None:
        """Return what may have led to a line that a process of a worker has written; None for nothing.

        These are the calls with causes that it runs, or has ended a moment ago.
        """
        found: list[Causes] = []
        for invocation, seen_done_at in list(self._caused.items()):
            callee = invocation.callee
            if callee is None or invocation.causes is None:
                continue
            if invocation.is_done:
                # When it has ended nobody wrote down: not after the last word of its callee.
                done_at = self._caused[invocation] = now if seen_done_at is None else seen_done_at
                if now - min(done_at, callee.heard_at) > OUTPUT_TIMEOUT:
                    del self._caused[invocation]
                    continue
            process = callee.owner.name, callee.instance, callee.generation
            if process == (worker, instance, generation):
                found.append(invocation.causes)
        return joined(found) if found else None
