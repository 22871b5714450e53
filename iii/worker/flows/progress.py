"""What a body knows of its run: the journal that came with the call, and what it has read of it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from iii.worker.api.requests import TriggerRequestInput

# A caller may wait for a run as long as it wants to; 24 days are the most that `poll` takes, in milliseconds.
NO_TIMEOUT = 20 * 86_400_000


class Progress:
    """The journal of one turn. Methods are safe on any thread: branches may run on several."""

    def __init__(self, turn: dict[str, Any]) -> None:
        self.run: str = turn["run"]
        self.created: int = turn["created"]
        self.ident = {"run": turn["run"], "turn": turn["turn"], "inband": True}
        self.lines: dict[str, dict[str, Any]] = {line["key"]: line for line in turn.get("journal") or ()}
        # Whether a step that is not in the journal is new.
        self.is_whole: bool = turn.get("is_whole", False)
        self._read: set[str] = set()
        self._seen: list[str] = []
        self.asking: list[str] = []  # the branches of the steps that the flow worker is being asked for

    def read(self, key: str, kinds: tuple[str, ...], function_id: str | None) -> dict[str, Any] | None:
        """Return a recorded step, None for one that the flow worker must be asked for."""
        line = self.lines.get(key)
        if line is None or line["kind"] not in kinds or line["function_id"] != function_id:
            return None
        self._seen.append(key)
        self._read.add(key)
        return line

    def is_past(self) -> bool:
        """Tell whether the body has read all that is recorded: what it does now is new."""
        return self.is_whole and len(self._read) == len(self.lines)

    def request(self, operation: str, fields: dict[str, Any]) -> TriggerRequestInput:
        """Return the call of an operation; it tells of what was read meanwhile."""
        seen, self._seen = self._seen, []
        payload = {"flow": self.ident, **({"seen": seen} if seen else {}), **fields}
        return flow_request(operation, payload, NO_TIMEOUT)

    def is_waited_for(self, branch: str) -> bool:
        """Tell whether a step of this branch, or of one above it, may wait until recorded ones were read here."""
        return any(not above or f"{branch}/".startswith(f"{above}/") for above in tuple(self.asking))

    def rest(self) -> TriggerRequestInput | None:
        """Return the call that tells of what was read last, None if nothing was."""
        return self.request("seen", {}) if self._seen else None


def flow_request(operation: str, payload: dict[str, Any], timeout_ms: float) -> TriggerRequestInput:
    """Return the call of a function of the flow worker, which is in the default namespace as all standard workers."""
    return {
        "function_id": f"flow::{operation}",
        "payload": payload,
        "timeout_ms": timeout_ms,
        "namespace": "default",
    }
