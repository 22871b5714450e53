"""A trace as lines for the terminal: a tree of spans, each with its bar in time. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cli.text.output import count, shown

# The narrowest bar that shows anything; names get the rest of the line.
LEAST_BAR = 10
MAX_NAME = 56

Span = dict[str, Any]


class Glyphs(NamedTuple):
    """The characters of tree and bars."""

    bar: str
    running: str
    branch: str
    last: str
    pipe: str


FINE = Glyphs("█", "▒", "├ ", "└ ", "│ ")
PLAIN = Glyphs("#", "~", "|-", "`-", "| ")


class _Line(NamedTuple):
    name: str
    span: Span
    indent: int


def spans_of(roots: Sequence[Span]) -> list[Span]:
    """Return every span of a tree."""
    spans, waiting = [], list(roots)
    while waiting:
        span = waiting.pop()
        spans.append({name: value for name, value in span.items() if name != "children"})
        waiting.extend(span.get("children", ()))
    return sorted(spans, key=_start)


def waterfall(roots: Sequence[Span], width: int, glyphs: Glyphs = FINE) -> list[str]:
    """Return the lines of a trace: a summary, then a line for each span, errors below theirs.

    `places` of a span that failed are lines about where it did.
    """
    spans = spans_of(roots)
    first = min(span["start_time_unix_nano"] for span in spans)
    last = max(_end(span) for span in spans)
    drawn = list(_tree(spans, glyphs))
    names = min(MAX_NAME, max(len(line.name) for line in drawn))
    services = max(len(shown(line.span["service_name"])) for line in drawn)
    room = max(LEAST_BAR, width - names - services - 14)
    errors = sum(span["status"] == "error" for span in spans)
    summary = [f"trace {shown(spans[0]['trace_id'])}", count(len(spans), "span")]
    summary += [count(len({span["service_name"] for span in spans}), "service"), milliseconds(last - first)]
    lines = ["  ".join([*summary, *([count(errors, "error")] if errors else [])])]
    for line in drawn:
        bar = _bar(line.span, first, max(last - first, 1), room, glyphs)
        took = "running" if line.span.get("pending") else milliseconds(_end(line.span) - _start(line.span))
        name = line.name if len(line.name) <= names else line.name[: names - 1] + "…"
        service = shown(line.span["service_name"])
        lines.append(f"{name:<{names}}  {service:<{services}} {took:>9}  {bar}".rstrip())
        lines.extend(_notes(line))
    return lines


def _tree(spans: Sequence[Span], glyphs: Glyphs) -> Iterator[_Line]:
    ids = {span["span_id"] for span in spans}
    children: dict[str | None, list[Span]] = {}
    for span in spans:
        parent = span.get("parent_span_id")
        children.setdefault(parent if parent in ids else None, []).append(span)
    # (span, what stands before its children, what stands before itself), the next one last
    waiting = [(span, "", "") for span in reversed(children.get(None, []))]
    while waiting:
        span, below, before = waiting.pop()
        yield _Line(before + shown(span["name"]), span, len(before))
        inner = children.get(span["span_id"], [])
        for number, child in reversed(list(enumerate(inner))):
            is_last = number == len(inner) - 1
            waiting.append(
                (child, below + ("  " if is_last else glyphs.pipe), below + (glyphs.last if is_last else glyphs.branch))
            )


def _bar(span: Span, first: int, whole: int, room: int, glyphs: Glyphs) -> str:
    start = min(room - 1, (_start(span) - first) * room // whole)
    length = max(1, round((_end(span) - _start(span)) * room / whole))
    mark = glyphs.running if span.get("pending") else glyphs.bar
    return " " * start + mark * min(length, room - start)


def _notes(line: _Line) -> Iterator[str]:
    attributes = dict(line.span.get("attributes") or ())
    notes = []
    if line.span["status"] == "error":
        code = attributes.get("error.code", "error")
        notes.append(f"! {code}: {line.span.get('status_description') or ''}".rstrip(": "))
        notes += line.span.get("places", ())
    if attributes.get("iii.attempt"):
        notes.append(f"attempt {attributes['iii.attempt']}")
    for note in notes:
        yield f"{' ' * (line.indent + 2)}{shown(note.partition(chr(10))[0])}"


def _start(span: Span) -> int:
    start: int = span["start_time_unix_nano"]
    return start


def _end(span: Span) -> int:
    end: int = span["end_time_unix_nano"]
    return max(_start(span), end)


def milliseconds(nanoseconds: float) -> str:
    """Return a duration as `0.2 ms`, `41 ms`, `1.20 s` or `75 s`."""
    value = nanoseconds / 1e6
    if value < 1000:
        return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"
    return f"{value / 1000:.2f} s" if value < 60_000 else f"{value / 1000:.0f} s"
