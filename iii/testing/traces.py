"""What a failing test shows: the traces of its calls as trees, and the failures that no caller has heard of. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from iii.engine.routing.tracer import Span
from iii.engine.supervision.reports import CallFailed
from iii.engine.terminal.screen import failure_lines

MAX_LINES = 200
_ROOTS = ""


def tree_lines(spans: Iterable[Span]) -> list[str]:
    """Return one line for each call, below the call that made it: function, worker, time, error."""
    children: dict[str, list[Span]] = {}
    known = {span.span_id: span for span in spans}
    for span in sorted(known.values(), key=lambda span: span.start):
        parent = span.parent_id if span.parent_id in known else _ROOTS
        children.setdefault(parent or _ROOTS, []).append(span)

    def lines(parent: str, indent: str) -> Iterator[str]:
        for span in children.get(parent, ()):
            yield indent + _line(span)
            yield from lines(span.span_id, f"{indent}  ")

    found = list(lines(_ROOTS, ""))
    hidden = len(found) - MAX_LINES
    return found if hidden <= 0 else [f"... {hidden} earlier calls", *found[hidden:]]


def _line(span: Span) -> str:
    owner = span.owner.name if span.owner is not None and span.owner.name else "no worker"
    action = f" [{span.action.type}]" if span.action is not None else ""
    error = f"  {span.error[0]}: {span.error[1].splitlines()[0] if span.error[1] else ''}" if span.error else ""
    return f"{span.function_id}{action}  ({owner})  {(span.end - span.start) * 1000:.1f} ms{error}"


def failure_text(failures: Iterable[CallFailed]) -> list[str]:
    """Return the lines about calls that failed and that no caller waited for, as `iii dev` shows them."""
    lines = []
    for failure in failures:
        head, details = failure_lines(failure)
        lines += [head, *(f"    {detail}" for detail in details)]
    return lines
