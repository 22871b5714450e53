"""What is known of one instance of a worker, as plain data for `iii ps`, the console and errors of refused calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iii.engine.supervision.instance import Instance
from iii.engine.supervision.lifecycle import Actual
from iii.engine.supervision.run import ExitReason


def row(instance: Instance, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return one row: name, instance, generation, pid, state, reloading, restarts, last_exit (words), last_error
    {file, line, text}, started_at and retry_at (seconds since the epoch), runtime, python, metrics.
    """
    spec, actual = instance.spec, instance.state.lifecycle.actual
    process = instance.serving.process if instance.serving else None
    is_source_missing = actual is Actual.READY and spec.script is not None and not Path(spec.script).exists()
    return {
        "name": spec.name,
        "instance": instance.index,
        "generation": instance.state.serving or instance.state.generation,
        "pid": process.pid if process else None,
        "state": "source_missing" if is_source_missing else actual.value,
        "reloading": bool(instance.state.candidate),
        "restarts": instance.restarts,
        "last_exit": instance.last_exit.words if instance.last_exit else None,
        "last_error": _error(instance.last_exit),
        "started_at": instance.started_at or None,
        "retry_at": instance.retry_at if actual is Actual.BACKOFF else None,
        "runtime": "other" if spec.command else "python",
        "python": str(spec.python) if spec.python else None,
        "metrics": dict(metrics),
    }


def unavailable_reason(instances: Sequence[Instance]) -> dict[str, Any]:
    """Return why calls to a worker are refused: its state, and what is known of its last exit."""
    if not instances:
        return {"state": "removed", "words": "no longer in iii.toml", "stderr": []}
    failed = (instance for instance in instances if instance.state.lifecycle.actual is Actual.FAILED)
    worst = next(failed, instances[0])
    last_exit = worst.last_exit
    return {
        "state": worst.state.lifecycle.actual.value,
        "words": last_exit.words if last_exit else "stopped",
        "stderr": list(last_exit.stderr) if last_exit else [],
        **(_error(last_exit) or {}),
    }


def _error(reason: ExitReason | None) -> dict[str, Any] | None:
    if reason is None or reason.error is None:
        return None
    return {"file": reason.error.file, "line": reason.error.line, "text": reason.error.text}
