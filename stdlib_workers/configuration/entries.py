"""One configuration: what is kept of it, and the forms in which callers see it. Pure."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from iii import InvocationError
from stdlib_workers.storage import Entry
from stdlib_workers.values import decode, encode

ID = re.compile(r"[a-z0-9_-]{1,64}")
# Of one configuration, with its schema, as compact JSON.
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration as it is stored: `value` with its placeholders, `schema` None when only a file has told of it.

    `file`: the digest of the file that says the same, None when there is none.
    """

    id: str
    name: str
    description: str
    schema: Any = None
    value: Any = None
    metadata: Any = None
    file: str | None = None

    def to_bytes(self) -> bytes:
        """Return what is stored. InvocationError `VALUE_TOO_LARGE` over the limit."""
        body = encode({key: value for key, value in asdict(self).items() if value is not None and key != "id"})
        if len(body) > MAX_BYTES:
            text = f"the configuration {self.id} has {len(body)} bytes with its schema, the limit is {MAX_BYTES}"
            raise InvocationError("VALUE_TOO_LARGE", text)
        return body

    def view(self) -> dict[str, Any]:
        """Return what lists show: never the value."""
        shown = {"id": self.id, "name": self.name, "description": self.description, "schema": self.schema}
        return shown if self.metadata is None else {**shown, "metadata": self.metadata}

    def says_the_same_as(self, other: Configuration) -> bool:
        """Whether only their files differ."""
        return replace(self, file=None).to_bytes() == replace(other, file=None).to_bytes()

    def content(self) -> tuple[Any, ...]:
        """Return what a file holds of it."""
        return self.name, self.description, self.value, self.metadata


def configuration_from(id: str, entry: Entry | None) -> Configuration | None:
    """Return the configuration of a stored entry."""
    return None if entry is None else Configuration(id, **decode(entry.value))


def check_id(id: str) -> str:
    """Return a configuration's id. InvocationError `INVALID_ID` for any other text."""
    if ID.fullmatch(id) is None:
        text = f"{id[:80]!r} is no id of a configuration: 1 to 64 of a-z, 0-9, `_` and `-`"
        raise InvocationError("INVALID_ID", text)
    return id
