"""What the body of a run may ask for in one turn: the keys of its steps, and the check for changed code. Pure.

The rule: of a branch with those below it, a step that is not recorded may be asked for only after all that are; kind
and function of a recorded step match; and the body ends only when all recorded steps were asked for. Then a body that
is repeated by the same code is never refused, in whatever order its branches run, and a change is found unless it lies
where the run has not been yet. Arguments may change.
"""

from __future__ import annotations

from collections.abc import Iterable

from stdlib_workers.flow.model import CALL, CHILD, Ask, Recorded


class Diverged(Exception):
    """The body does not match the journal: `recorded` is its step, `asked` what the body wants, None for its end."""

    def __init__(self, recorded: Recorded, asked: Ask | None) -> None:
        super().__init__(recorded.key)
        self.recorded = recorded
        self.asked = asked


class Ambiguous(Exception):
    """A name is used again while the step of that name is under way: which one would come first is chance."""


class Journal:
    """The recorded steps of a run, and what a turn has asked for so far.

    `continues`: recorded steps that the body does not ask for are skipped.
    """

    def __init__(self, recorded: Iterable[Recorded], *, continues: bool = False) -> None:
        self.recorded = {entry.key: entry for entry in recorded}
        self._continues = continues
        self._asked: set[str] = set()
        self._uses: dict[tuple[str, str], int] = {}
        self._under_way: set[tuple[str, str]] = set()
        self._unasked: dict[str, int] = {}  # by branch, recorded steps there and below it
        for entry in self.recorded.values():
            self._count(entry.branch, 1)

    def key_of(self, branch: str, name: str) -> str:
        """Return the key of the next step of this name in a branch: `name`, later `name#2`. Ambiguous in between."""
        place = branch, name
        if place in self._under_way:
            raise Ambiguous(name)
        self._under_way.add(place)
        self._uses[place] = self._uses.get(place, 0) + 1
        return key_from(branch, name, self._uses[place])

    def is_over(self, branch: str, name: str) -> None:
        """Take note that the step of this name is not under way any more."""
        self._under_way.discard((branch, name))

    def replayed(self, keys: Iterable[str]) -> None:
        """Take note of recorded steps that the body has read from the journal that it was given."""
        for key in keys:
            self._ask(key)

    def ask(self, key: str, ask: Ask) -> Recorded | None:
        """Return the recorded step of a key, None for one that may be made now. Diverged."""
        recorded = self.recorded.get(key)
        if recorded is None and ask.was is not None:
            former = self.recorded.get(key_from(ask.branch, ask.was, 1))
            recorded = None if former is None or former.key in self._asked else former
        if recorded is not None:
            if (_kind(recorded.kind), recorded.function_id) != (_kind(ask.kind), ask.function_id):
                raise Diverged(recorded, ask)
            self._ask(recorded.key)
            return recorded
        if not self._continues and self._unasked.get(ask.branch):
            raise Diverged(self._first_unasked(ask.branch), ask)
        return None

    def is_past(self, key: str, branch: str) -> bool:
        """Whether the run had gone past this place of a branch when there was no step of this key yet."""
        return key not in self.recorded and bool(self._unasked.get(branch))

    def add(self, entry: Recorded) -> None:
        """Take in a step that has been recorded in this turn, and is asked for."""
        if entry.key not in self.recorded:
            self.recorded[entry.key] = entry
            self._asked.add(entry.key)

    def end(self) -> list[str]:
        """Return the keys that the body has skipped, in the journal's order. Diverged if it must not."""
        if not self._continues and self._unasked.get(""):
            raise Diverged(self._first_unasked(""), None)
        return [key for key in self.recorded if key not in self._asked]

    def _ask(self, key: str) -> None:
        if key in self.recorded and key not in self._asked:
            self._asked.add(key)
            self._count(self.recorded[key].branch, -1)

    def _count(self, branch: str, more: int) -> None:
        for place in lineage(branch):
            self._unasked[place] = self._unasked.get(place, 0) + more

    def _first_unasked(self, branch: str) -> Recorded:
        return next(
            entry
            for entry in self.recorded.values()
            if entry.key not in self._asked and is_within(entry.branch, branch)
        )


def _kind(kind: str) -> str:
    """A called function may have become a flow, or have ceased to be one."""
    return CALL if kind == CHILD else kind


def key_from(branch: str, name: str, use: int) -> str:
    """Return the key of the `use`th step of a name in a branch."""
    name = name if use == 1 else f"{name}#{use}"
    return f"{branch}/{name}" if branch else name


def lineage(branch: str) -> list[str]:
    """Return a branch and those above it: `a/1/b/2`, `a/1/b`, `a/1`, `a` and `""`."""
    found = [branch]
    while branch:
        branch = branch.rpartition("/")[0]
        found.append(branch)
    return found


def is_within(branch: str, other: str) -> bool:
    """Tell whether a branch is `other` or below it."""
    return not other or branch == other or branch.startswith(f"{other}/")
