"""The check for changed code: random bodies that die anywhere are never refused, edits are found where they must be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdlib_workers.flow.journal import Ambiguous, Diverged, Journal, key_from
from stdlib_workers.flow.model import CALL, CHILD, STEP, Ask, Recorded

# A slow run has `III_FLOW_PROGRAMS=20000`.
PROGRAMS = int(os.environ.get("III_FLOW_PROGRAMS", "300"))


class Step(NamedTuple):
    """A step of a random body: its name, and what it calls (None: a local step)."""

    name: str
    function_id: str | None


class Gather(NamedTuple):
    """Branches that run at once."""

    branches: tuple[tuple[Step | Gather, ...], ...]


Body = tuple[Step | Gather, ...]

steps = st.builds(Step, st.sampled_from("abcd"), st.sampled_from([None, "f::x", "f::y"]))
bodies = st.recursive(
    st.lists(steps, max_size=5).map(tuple),
    lambda inner: st.lists(
        st.one_of(steps, st.builds(Gather, st.lists(inner, min_size=1, max_size=3).map(tuple))), max_size=5
    ).map(tuple),
    max_leaves=8,
)


def asks_of(body: Body, branch: str = "") -> Iterator[object]:
    """Yield what a body does next: (key, ask), or a list of such generators that run at once."""
    uses: dict[str, int] = {}
    for item in body:
        name = item.name if isinstance(item, Step) else "gather"
        uses[name] = uses.get(name, 0) + 1
        key = key_from(branch, name, uses[name])
        if isinstance(item, Step):
            kind = STEP if item.function_id is None else CALL
            yield key, Ask(item.name, kind, item.function_id, branch)
        else:
            yield [asks_of(each, f"{key}/{index}") for index, each in enumerate(item.branches)]


def interleaved(body: Iterator[object], random: Random) -> Iterator[tuple[str, Ask]]:
    """Yield the steps of a body, those of branches in a random order."""
    for item in body:
        if isinstance(item, tuple):
            yield item
            continue
        assert isinstance(item, list)
        running = [interleaved(branch, random) for branch in item]
        while running:
            branch = random.choice(running)
            step = next(branch, None)
            if step is None:
                running.remove(branch)
            else:
                yield step


def make_turn(body: Body, recorded: list[Recorded], random: Random, dies_after: int) -> bool:
    """Make a turn that dies after so many new steps, and record those; tell whether the body has ended."""
    journal = Journal(recorded)
    for key, ask in interleaved(asks_of(body), random):
        if journal.ask(key, ask) is None:
            if dies_after == 0:
                return False
            dies_after -= 1
            entry = Recorded(key, ask.branch, ask.kind, ask.function_id)
            recorded.append(entry)
            journal.add(entry)
    assert journal.end() == []
    return True


@settings(max_examples=PROGRAMS, deadline=None)
@given(bodies, st.integers(0, 2**32))
def test_a_body_that_dies_anywhere_and_is_repeated_by_the_same_code_is_never_refused(body: Body, seed: int) -> None:
    random, recorded = Random(seed), []
    while not make_turn(body, recorded, random, random.randint(0, 4)):
        pass
    keys = [entry.key for entry in recorded]
    assert len(keys) == len(set(keys))


def flat(body: Body, branch: str = "") -> list[tuple[str, Ask]]:
    return [step for step in interleaved(asks_of(body, branch), Random(0))]


@settings(max_examples=PROGRAMS, deadline=None)
@given(st.lists(steps, min_size=1, max_size=8).map(tuple), st.data())
def test_an_edit_is_silent_where_the_run_has_not_been_and_found_where_it_has(body: Body, data: st.DataObject) -> None:
    reached = data.draw(st.integers(0, len(body)))
    place = data.draw(st.integers(0, len(body) - 1))
    other = data.draw(steps)
    kind = data.draw(st.sampled_from(["remove", "replace", "insert"]))
    edited = list(body)
    if kind == "remove":
        del edited[place]
    elif kind == "replace":
        edited[place] = other
    else:
        edited.insert(place, other)
    recorded = [Recorded(key, ask.branch, ask.kind, ask.function_id) for key, ask in flat(body)[:reached]]
    journal = Journal(recorded)
    found = None
    try:
        for key, ask in flat(tuple(edited)):
            if journal.ask(key, ask) is None:
                journal.add(Recorded(key, ask.branch, ask.kind, ask.function_id))
        journal.end()
    except Diverged as error:
        found = error
    # The contract, said without the journal: the recorded steps are what the edited body asks for first, in any order.
    asked = {key: (ask.kind, ask.function_id) for key, ask in flat(tuple(edited))[:reached]}
    matches = asked == {entry.key: (entry.kind, entry.function_id) for entry in recorded}
    assert (found is None) == matches, (recorded, edited)


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
