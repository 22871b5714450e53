"""All mistakes of one file, told at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from iii.errors import ProjectError


class Mistakes:
    """Collects the errors of checks that do not depend on each other."""

    def __init__(self) -> None:
        self._errors: list[ProjectError] = []

    def __bool__(self) -> bool:
        return bool(self._errors)

    def add(self, error: ProjectError) -> None:
        self._errors += [error, *error.others]

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Run the body; keep its error, which ends the body."""
        try:
            yield
        except ProjectError as error:
            self.add(error)

    def raise_all(self) -> None:
        """Raise the first error in the file, with the others behind it, if there is any."""
        if self._errors:
            # Errors of other files than the project's own, which have another name, stay where they are.
            first, *others = sorted(self._errors, key=lambda error: (error.line, error.column))
            first.others = tuple(others)
            raise first
