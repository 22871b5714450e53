"""`${VAR}` and `${VAR:default}` in the strings of a value. Pure: the variables are handed in.

A string that is one placeholder and nothing else becomes what its text says in YAML: 8080 is a number, true is true.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Lookup = Callable[[str], str | None]

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}")
_NULL = ("null", "Null", "NULL", "~")
_BOOLEANS = {**dict.fromkeys(("true", "True", "TRUE"), True), **dict.fromkeys(("false", "False", "FALSE"), False)}
_INTEGER = re.compile(r"[-+]?[0-9]{1,300}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
# What a default of this name stands for.
ENGINE_VERSION = "__III_ENGINE_VERSION__"
# Most characters of a value with all its variables in it.
MAX_EXPANDED = 1 << 20


class TooLong(ValueError):
    """The value with its variables in it has more than MAX_EXPANDED characters."""


class Expansion:
    """One value with its variables in it. `missing`: names without a value or default, which stay as they are."""

    def __init__(self, template: Any, lookup: Lookup, engine_version: str) -> None:
        self.missing: list[str] = []
        self._lookup = lookup
        self._engine_version = engine_version
        self._added = 0
        self.value = self._expand(template)

    def _expand(self, template: Any) -> Any:
        if isinstance(template, dict):
            return {key: self._expand(value) for key, value in template.items()}
        if isinstance(template, list):
            return [self._expand(value) for value in template]
        if not isinstance(template, str) or "${" not in template:
            return template
        whole = _PLACEHOLDER.fullmatch(template.strip())
        if whole is None:
            return _PLACEHOLDER.sub(lambda found: self._text_of(found) or "", template)
        text = self._text_of(whole)
        return template if text == whole[0] else scalar_from(text)

    def _text_of(self, found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        text = self._lookup(name)
        if text is None:
            text = self._engine_version if default == ENGINE_VERSION else default
        if text is None:
            if name not in self.missing:
                self.missing.append(name)
            return found[0]
        self._added += len(text)
        if self._added > MAX_EXPANDED:
            raise TooLong(f"with its variables the value has more than {MAX_EXPANDED} characters")
        return text


def scalar_from(text: str) -> Any:
    """Return what a text says as a YAML scalar: null, a boolean, a number, or itself."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
