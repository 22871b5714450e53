"""Judges the history of random flows: what was planned, what runs show, what their handlers wrote down. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

# Milliseconds by which a handler may begin after the end of its step is on the disk: the clocks of two processes, and
# the way of a cancelled call to where it is dropped.
TOLERANCE = 250
Line = dict[str, Any]


class Planned(NamedTuple):
    """A run as it is to go: its steps, each a kind and a number, and whether it fails behind the last one."""

    id: str
    plan: list[tuple[str, int]]
    fails: bool

    def names(self, *kinds: str) -> list[str]:
        """Return the names of its steps of these kinds, in order."""
        return [f"{kind}-{number}" for number, (kind, _) in enumerate(self.plan) if kind in kinds]

    def keys(self) -> list[str]:
        """Return the keys of its journal."""
        maps = iter(range(1, len(self.plan) + 1))
        found = []
        for number, (kind, value) in enumerate(self.plan):
            if kind == "map":
                use = next(maps)
                branch = "callees::work" if use == 1 else f"callees::work#{use}"
                found += [f"{branch}/{index}/callees::work" for index in range(value)]
            else:
                found.append(f"{kind}-{number}")
        return found

    def charges(self) -> int:
        """Return how many of its calls the account keeps."""
        mapped = sum(value for kind, value in self.plan if kind == "map")
        return mapped + (0 if self.fails else len(self.names("call")))


def planned(id: str, chance: random.Random) -> Planned:
    """Return a random run."""
    kinds = [chance.choice(["call", "call", "step", "sleep", "wait", "map"]) for _ in range(chance.randint(1, 5))]
    return Planned(id, [(kind, chance.randint(1, 4)) for kind in kinds], chance.random() < 0.3)


def by_run(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Return the lines of handlers by the run that they are about, each in the order of the file."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line["run"], []).append(line)
    return found


def violations(run: Planned, shown: dict[str, Any] | None, lines: list[Line]) -> list[str]:
    """Say what is wrong with a run: `shown` is what `flow::export` says of it, None if it is lost."""
    if shown is None:
        return [f"{run.id} was acknowledged and is lost"]
    found = [*_of_end(run, shown), *_of_journal(run, shown), *_of_bodies(run, shown, lines)]
    found += [*_of_attempts(run, shown, lines), *_of_undoing(run, shown, lines)]
    return [f"{run.id} {text}" for text in found]


def balance_violations(runs: Iterable[Planned], charged: int) -> list[str]:
    """Say whether the account has what was charged and not refunded, each once."""
    expected = sum(run.charges() for run in runs)
    return [] if charged == expected else [f"the account has {charged} charges, not {expected}"]


def _of_end(run: Planned, shown: dict[str, Any]) -> list[str]:
    if shown["state"] != ("failed" if run.fails else "completed"):
        return [f"is {shown['state']}: {shown.get('error')}"]
    if run.fails:
        return [] if shown["error"]["code"] == "planned" else [f"has failed by {shown['error']}"]
    return [f"has the result {shown['result']}"] * (not _is_result(run, shown["result"]))


def _is_result(run: Planned, result: list[Any]) -> bool:
    events = iter(range(len(run.plan)))
    steps = [(number, *step) for number, step in enumerate(run.plan) if step[0] != "sleep"]
    return len(result) == len(steps) and all(
        _is_value(f"{kind}-{number}", kind, value, events, item)
        for (number, kind, value), item in zip(steps, result, strict=True)
    )


def _is_value(name: str, kind: str, value: int, events: Iterable[int], item: Any) -> bool:
    if kind == "wait":
        return bool(item == next(iter(events)))
    if kind == "map":
        return [text.partition(":")[0] for text in item] == [f"{name}.{index}" for index in range(value)]
    return str(item).startswith(f"{name}:")


def _of_journal(run: Planned, shown: dict[str, Any]) -> list[str]:
    found = [f"has the key {key} {count} times" for key, count in Counter(_keys(shown)).items() if count > 1]
    if missing := set(run.keys()) ^ set(_keys(shown)):
        found.append(f"has other steps than planned: {sorted(missing)}")
    for step in shown["steps"]:
        if step["state"] != "done":
            found.append(f"has ended with the step {step['key']} {step['state']}")
        elif step["kind"] == "sleep":
            slept = step["ended"] - step["started"]
            if slept < run.plan[int(step["key"].partition("-")[2])][1]:
                found.append(f"woke early, after {slept} ms at {step['key']}")
    return found


def _keys(shown: dict[str, Any]) -> list[str]:
    return [step["key"] for step in shown["steps"]]


def _of_bodies(run: Planned, shown: dict[str, Any], lines: list[Line]) -> list[str]:
    """All turns see the same outcomes, which are those of the result."""
    seen: list[Any] = shown["result"] if shown["state"] == "completed" else []
    for line in lines:
        if "saw" in line:
            seen, shorter = (seen, line["saw"]) if len(seen) >= len(line["saw"]) else (line["saw"], seen)
            if seen[: len(shorter)] != shorter:
                return [f"has seen {shorter}, and in another turn {seen}"]
    return []


def _of_attempts(run: Planned, shown: dict[str, Any], lines: list[Line]) -> list[str]:
    """What was recorded was done, by no more attempts than recorded, none of which began after the step had ended."""
    steps = {step["key"]: step for step in shown["steps"]}
    found, done = [], set()
    for line in lines:
        if "did" in line:
            done.add(line["did"])
            step = steps.get(line["key"])
            if step is None:
                found.append(f"did {line['did']}, which its journal does not have")
            elif line.get("attempt", 0) > step.get("attempt", 0):
                found.append(f"did {line['did']} in attempt {line['attempt']} of {step.get('attempt', 0)}")
            elif line["at"] > step["ended"] + TOLERANCE:
                found.append(f"did {line['did']} {line['at'] - step['ended']} ms after its end")
    wanted = {*run.names("call", "step")}
    wanted |= {
        f"map-{number}.{n}" for number, (kind, value) in enumerate(run.plan) if kind == "map" for n in range(value)
    }
    return found + ([f"never did {sorted(missing)}"] if (missing := wanted - done) else [])


def _of_undoing(run: Planned, shown: dict[str, Any], lines: list[Line]) -> list[str]:
    """Calls of a run that has failed are undone with their results, latest first; nothing is done after that."""
    undid = [line for line in lines if "undid" in line]
    found = []
    order = list(dict.fromkeys(line["undid"] for line in undid))
    if order != (run.names("call")[::-1] if run.fails else []):
        found.append(f"undid {order}")
    values = {step["key"]: step.get("value") for step in shown["steps"]}
    found += [
        f"undid {line['undid']} with {line['result']}, not {values.get(line['undid'])}"
        for line in undid
        if line["result"] != values.get(line["undid"])
    ]
    if undid:
        begun = lines.index(undid[0])
        if late := [line["did"] for line in lines[begun:] if "did" in line]:
            found.append(f"went on after its undoing: {late}")
    return found
