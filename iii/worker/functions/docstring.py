"""What a docstring says: its first paragraph, and a description for each parameter.

Reads the two usual forms, `Args:` with indented `name: text` lines (also `Attributes:` and `Parameters:`) and
`:param name: text`. Pure.
"""

from __future__ import annotations

_HEADS = ("args:", "arguments:", "attributes:", "parameters:")


def first_paragraph(doc: str | None) -> str | None:
    """Return the first paragraph of a docstring on one line, None when there is none."""
    head = (doc or "").strip().partition("\n\n")[0]
    return " ".join(line.strip() for line in head.splitlines()) or None


def parameter_descriptions(doc: str | None) -> dict[str, str]:
    """Return the text for each parameter that a docstring describes, on one line each."""
    lines = (doc or "").expandtabs().splitlines()
    descriptions = _from_section(lines)
    for line in lines:
        head, _, text = line.strip().removeprefix(":").partition(":")
        words = head.split()
        # `:param name:` or `:param type name:`
        if words[:1] == ["param"] and line.strip().startswith(":") and len(words) > 1 and text.strip():
            descriptions[words[-1]] = text.strip()
    return descriptions


def _from_section(lines: list[str]) -> dict[str, str]:
    """Return what stands below the first `Args:` until the indentation ends."""
    heads = [number for number, line in enumerate(lines) if line.strip().lower() in _HEADS]
    if not heads:
        return {}
    start = heads[0]
    outer, inner = _indent(lines[start]), 0
    descriptions: dict[str, str] = {}
    name = ""
    for line in lines[start + 1 :]:
        text = line.strip()
        if text and _indent(line) <= outer:
            break
        inner = inner or _indent(line)
        if text and _indent(line) == inner:
            name, _, text = (part.strip() for part in text.partition(":"))
            name = name.partition("(")[0].strip().lstrip("*")
        if name and text:
            descriptions[name] = f"{descriptions.get(name, '')} {text}".strip()
    return descriptions


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip()) if line.strip() else 0
