"""`${NAME}` in iii.toml and in .env files becomes the value of a variable. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-?([^}]*))?\}|\$\{")

Lookup = Callable[[str], "str | None"]


def with_values(text: str, lookup: Lookup, refuse: Callable[[str, str], Exception]) -> str:
    """Return `text` with `${NAME}`, `${NAME:default}` and `${NAME:-default}` replaced; `$${` gives `${`.

    `lookup` returns the value of a variable, None for one that is unset. Raises what `refuse(message, hint)` returns
    for an unset variable without default, and for what is no reference; no message shows a value.
    """
    malformed = "a variable is written ${NAME} or ${NAME:default}"
    # A `${NAME:` without an end would be looked for up to the end of the text, once for each.
    end = text.rfind("}") + 1
    if "${" in text[end:].replace("$${", ""):
        raise refuse(malformed, "")

    def replaced(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if match[0] == "$${":
            return "${"
        if name is None:
            raise refuse(malformed, "")
        value = lookup(name)
        if value is None and default is None:
            raise refuse(f"the variable {name} is not set", f"set it, or write ${{{name}:default}}")
        return default if value is None else value

    return _REFERENCE.sub(replaced, text[:end]) + text[end:].replace("$${", "${")
