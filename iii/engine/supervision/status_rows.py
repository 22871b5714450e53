"""The facts about one instance of a worker as plain data, for `iii ps`, the console and refused calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iii.engine.config.spec import WorkerSpec
from iii.engine.supervision.instance import Instance
from iii.engine.supervision.lifecycle import Actual
from iii.engine.supervision.run import ExitReason


def row(seat: Instance, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return one row: name, instance, generation, pid, state, restarts, last_exit (words), started_at
    (seconds since the epoch), runtime, python, last_error {file, line, text}, retry_at, metrics.
    """
    serving = seat.serving
    process = serving.process if serving else None
    return {
        "name": seat.spec.name,
        "instance": seat.instance,
        "generation": seat.slot.serving or seat.slot.generation,
        "pid": process.pid if process else None,
        "state": _state(seat),
        "reloading": bool(seat.slot.candidate),
        "restarts": seat.restarts,
        "last_exit": seat.last_exit.words if seat.last_exit else None,
        "last_error": _error(seat.last_exit),
        "started_at": seat.started_at or None,
        "retry_at": seat.retry_at if seat.slot.state.actual is Actual.BACKOFF else None,
        "runtime": "other" if seat.spec.command else "python",
        "python": str(seat.spec.python) if seat.spec.python else None,
        "metrics": dict(metrics),
    }


def unavailable_reason(seats: Sequence[Instance]) -> dict[str, Any]:
    """Return why calls to a worker are refused: state, and what is known of its last exit."""
    worst = next((seat for seat in seats if seat.slot.state.actual is Actual.FAILED), seats[0] if seats else None)
    if worst is None:
        return {"state": "removed", "words": "no longer in iii.toml", "stderr": []}
    last = worst.last_exit
    reason: dict[str, Any] = {
        "state": worst.slot.state.actual.value,
        "words": last.words if last else "stopped",
        "stderr": list(last.stderr) if last else [],
    }
    return {**reason, **(_error(last) or {})}


def is_source_missing(spec: WorkerSpec) -> bool:
    """True when the script that a worker would start with is gone."""
    return spec.script is not None and not Path(spec.script).exists()


def _state(seat: Instance) -> str:
    actual = seat.slot.state.actual
    if actual is Actual.READY and is_source_missing(seat.spec):
        return "source_missing"
    return actual.value


def _error(reason: ExitReason | None) -> dict[str, Any] | None:
    if reason is None or reason.error is None:
        return None
    return {"file": reason.error.file, "line": reason.error.line, "text": reason.error.text}
