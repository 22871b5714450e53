"""The check for changed code: random bodies that die anywhere are never refused, edits are found where they must be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from stdlib_workers.flow.journal import Ambiguous, Diverged, Journal, key_from
from stdlib_workers.flow.model import CALL, CHILD, STEP, Ask, Recorded

# A slow run has `III_FLOW_PROGRAMS=20000`.
PROGRAMS = int(os.environ.get("III_FLOW_PROGRAMS", "200"))


class Step(NamedTuple):
    """A step of a random body: its name, and what it calls (None: a local step)."""

    name: str
    function_id: str | None


class Gather(NamedTuple):
    """Branches that run at once."""

    branches: tuple[tuple[Step | Gather | Tasks, ...], ...]


class Tasks(NamedTuple):
    """Tasks of one branch that run at once, as by `asyncio.gather`, each with names of its own."""

    name: str
    tasks: tuple[tuple[Step, ...], ...]


Body = tuple[Step | Gather | Tasks, ...]

steps = st.builds(Step, st.sampled_from("abcd"), st.sampled_from([None, "f::x", "f::y"]))
tasks = st.builds(Tasks, st.sampled_from("tu"), st.lists(st.lists(steps, max_size=3).map(tuple), max_size=3).map(tuple))
bodies = st.recursive(
    st.lists(st.one_of(steps, tasks), max_size=5).map(tuple),
    lambda inner: st.lists(
        st.one_of(steps, tasks, st.builds(Gather, st.lists(inner, min_size=1, max_size=3).map(tuple))), max_size=5
    ).map(tuple),
    max_leaves=8,
)


class Place(NamedTuple):
    """A step of a body. `path` has by turns the number of an item in a sequence, and that of one of several at once."""

    key: str
    ask: Ask
    path: tuple[int, ...]

    def is_before(self, other: Place) -> bool:
        """Whether this step is over before the other one can be asked for."""
        level = next(level for level, (mine, its) in enumerate(zip(self.path, other.path, strict=False)) if mine != its)
        return level % 2 == 0 and self.path[level] < other.path[level]

    @property
    def recorded(self) -> Recorded:
        return Recorded(self.key, self.ask.branch, self.ask.kind, self.ask.function_id)


def places_of(body: Body, branch: str = "") -> Iterator[Any]:
    """Yield what a body does one after the other: a step, or a list of such generators that run at once."""

    def sequence(body: Body, branch: str, path: tuple[int, ...], uses: dict[str, int], prefix: str) -> Iterator[Any]:
        for number, item in enumerate(body):
            here = (*path, number)
            if isinstance(item, Tasks):
                each = enumerate(item.tasks)
                yield [sequence(task, branch, (*here, index), uses, f"{item.name}{index}") for index, task in each]
                continue
            name = prefix + item.name if isinstance(item, Step) else "gather"
            uses[name] = uses.get(name, 0) + 1
            key = key_from(branch, name, uses[name])
            if isinstance(item, Step):
                kind = STEP if item.function_id is None else CALL
                yield Place(key, Ask(name, kind, item.function_id, branch), here)
            else:
                branches = enumerate(item.branches)
                yield [sequence(each, f"{key}/{index}", (*here, index), {}, "") for index, each in branches]

    return sequence(body, branch, (), {}, "")


def all_places(items: Iterator[Any]) -> Iterator[Place]:
    """Yield every step of a body."""
    for item in items:
        if isinstance(item, Place):
            yield item
        else:
            for each in item:
                yield from all_places(each)


class Died(Exception):
    """The process of a body."""


class Execution:
    """One turn of a body, which dies after so many new steps; those are recorded.

    What runs at once goes on in a random order. A new step waits while others may still ask for recorded ones.
    """

    def __init__(self, recorded: list[Recorded], random: Random, dies_after: int) -> None:
        self.recorded = recorded
        self.journal = Journal(recorded)
        self.random = random
        self.left = dies_after
        self.refused: Diverged | None = None

    def ask(self, place: Place) -> bool:
        """Make a step, or read it; False while it has to wait."""
        try:
            if self.journal.ask(place.key, place.ask) is None:
                if self.left == 0:
                    raise Died
                self.left -= 1
                self.recorded.append(place.recorded)
                self.journal.add(place.recorded)
        except Diverged as error:
            self.refused = error
            return False
        return True


class Thread:
    """Things that are done one after the other: `inner` run at once, or `wanted` waits."""

    def __init__(self, execution: Execution, items: Iterator[Any]) -> None:
        self.execution = execution
        self.items = items
        self.inner: list[Thread] = []
        self.wanted: Place | None = None
        self.is_over = False

    def go_on(self) -> bool:
        """Do one thing; False when nothing can be done now."""
        if self.inner:
            self.execution.random.shuffle(self.inner)
            has_gone_on = any(thread.go_on() for thread in self.inner)
            self.inner = [thread for thread in self.inner if not thread.is_over]
            return has_gone_on
        item = self.wanted or next(self.items, None)
        if isinstance(item, Place):
            has_asked = self.execution.ask(item)
            self.wanted = None if has_asked else item
            return has_asked
        self.inner = [Thread(self.execution, each) for each in item or ()]
        self.is_over = item is None
        return True


def make_turn(body: Body, recorded: list[Recorded], random: Random, dies_after: int) -> bool:
    """Make a turn; tell whether the body has ended. Diverged."""
    execution = Execution(recorded, random, dies_after)
    whole = Thread(execution, places_of(body))
    try:
        while not whole.is_over:
            if not whole.go_on():
                assert execution.refused is not None
                raise execution.refused
    except Died:
        return False
    assert execution.journal.end() == []
    return True


@settings(max_examples=PROGRAMS, deadline=None)
@given(bodies, st.integers(0, 2**32))
def test_a_body_that_dies_anywhere_and_is_repeated_by_the_same_code_is_never_refused(body: Body, seed: int) -> None:
    random, recorded, deaths = Random(seed), list[Recorded](), 0
    while not make_turn(body, recorded, random, random.randint(0, 4)):
        deaths += 1
    keys = [entry.key for entry in recorded]
    assert sorted(keys) == sorted(place.key for place in all_places(places_of(body)))
    assert len(keys) == len(set(keys))
    event(f"deaths: {min(deaths, 5)}{'' if deaths < 5 else ' or more'}")


def edited(body: Body, random: Random) -> Body:
    """Return a body with one edit somewhere in it."""
    items = list(body)
    nested = [number for number, item in enumerate(items) if isinstance(item, Gather | Tasks)]
    if nested and random.random() < 0.6:
        number = random.choice(nested)
        item = items[number]
        parts: list[Any] = list(item.branches if isinstance(item, Gather) else item.tasks)
        what = random.choice(["part", "part", "part", "more", "fewer"] if parts else ["more"])
        if what == "part":
            index = random.randrange(len(parts))
            parts[index] = edited(parts[index], random)
        elif what == "more":
            parts.append((Step(random.choice("abcd"), None),))
        else:
            parts.pop(random.randrange(len(parts)))
        items[number] = Gather(tuple(parts)) if isinstance(item, Gather) else Tasks(item.name, tuple(parts))
        return tuple(items)
    step = Step(random.choice("abcd"), random.choice([None, "f::x", "f::y"]))
    place = random.randint(0, len(items))
    what = random.choice(["insert", "remove", "replace", "swap"])
    if what == "insert" or place == len(items):
        items.insert(place, step)
    elif what == "remove":
        del items[place]
    elif what == "replace":
        items[place] = step
    else:
        other = random.randrange(len(items))
        items[place], items[other] = items[other], items[place]
    return tuple(items)


def is_silent(body: Body, recorded: list[Recorded]) -> bool:
    """The contract, of the whole body at once, in whatever order its branches run.

    All recorded steps are in it, with their kinds and functions, and no recorded step comes after one that is not
    recorded and whose branch the recorded one is in or below.
    """
    places = {place.key: place for place in all_places(places_of(body))}
    entries = {entry.key: entry for entry in recorded}
    if any(key not in places or places[key].recorded != entry for key, entry in entries.items()):
        return False
    new = [place for key, place in places.items() if key not in entries]
    return not any(
        place.is_before(places[key]) and (not place.ask.branch or f"{entry.branch}/".startswith(f"{place.ask.branch}/"))
        for place in new
        for key, entry in entries.items()
    )


@settings(max_examples=PROGRAMS, deadline=None)
@given(bodies, st.integers(0, 2**32))
def test_an_edit_is_silent_exactly_where_the_contract_says(body: Body, seed: int) -> None:
    random, before = Random(seed), list[Recorded]()
    has_ended = make_turn(body, before, random, random.randint(0, 8))
    new_body = edited(body, random)
    if random.random() < 0.2:
        new_body = edited(new_body, random)
    expected = is_silent(new_body, before)
    for _ in range(3):  # in other orders
        recorded = list(before)
        try:
            while not make_turn(new_body, recorded, random, random.randint(0, 5)):
                pass
            found = None
        except Diverged as error:
            found = error
        assert (found is None) == expected, (before, new_body)
        if found is not None:
            assert found.recorded in before
            assert found.asked is None or found.asked != found.recorded
    where = "whole" if has_ended else "begun" if before else "new"
    event(f"{'silent' if expected else 'found'}, of a {where} run")


def recorded_steps(*names: str, branch: str = "") -> list[Recorded]:
    return [Recorded(key_from(branch, name, 1), branch, STEP, None) for name in names]


def test_a_step_that_is_removed_renamed_or_swapped_is_named() -> None:
    with pytest.raises(Diverged) as removed:
        Journal(recorded_steps("a", "b")).ask("c", Ask("c", STEP))
    assert (removed.value.recorded.key, removed.value.asked) == ("a", Ask("c", STEP))
    with pytest.raises(Diverged) as ended:
        Journal(recorded_steps("a")).end()
    assert ended.value.asked is None
    with pytest.raises(Diverged):
        Journal(recorded_steps("a")).ask("a", Ask("a", CALL, "f::x"))


def test_a_function_that_has_become_a_flow_is_the_same_step() -> None:
    journal = Journal([Recorded("f::x", "", CALL, "f::x")])
    assert journal.ask("f::x", Ask("f::x", CHILD, "f::x")) is not None
    assert journal.end() == []


def test_a_renamed_step_is_found_by_what_it_was() -> None:
    journal = Journal(recorded_steps("label"))
    found = journal.ask("tag", Ask("tag", STEP, was="label"))
    assert found is not None
    assert found.key == "label"
    assert journal.end() == []


def test_with_continue_what_is_not_asked_for_is_left_over() -> None:
    journal = Journal(recorded_steps("a", "b", "c"), continues=True)
    assert journal.ask("b", Ask("b", STEP)) is not None
    assert journal.ask("d", Ask("d", STEP)) is None
    assert journal.end() == ["a", "c"]


def test_a_branch_waits_for_its_own_steps_only() -> None:
    journal = Journal(
        [*recorded_steps("a"), *recorded_steps("x", branch="gather/0"), *recorded_steps("y", branch="gather/1")]
    )
    journal.replayed(["a"])
    assert journal.ask("gather/0/x", Ask("x", STEP, branch="gather/0")) is not None
    assert journal.ask("gather/0/z", Ask("z", STEP, branch="gather/0")) is None
    with pytest.raises(Diverged):
        journal.ask("b", Ask("b", STEP))
    journal.replayed(["gather/1/y"])
    assert journal.ask("b", Ask("b", STEP)) is None


def test_a_run_that_had_gone_past_a_place_is_not_patched_there() -> None:
    assert Journal(recorded_steps("a")).is_past("patch:new", "")
    journal = Journal(recorded_steps("a"))
    journal.replayed(["a"])
    assert not journal.is_past("patch:new", "")


def test_a_name_is_used_again_only_when_its_step_is_over() -> None:
    journal = Journal([])
    assert journal.key_of("", "a") == "a"
    with pytest.raises(Ambiguous):
        journal.key_of("", "a")
    assert journal.key_of("gather/1", "a") == "gather/1/a"
    journal.is_over("", "a")
    assert journal.key_of("", "a") == "a#2"
