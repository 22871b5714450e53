"""What caused a call, and which chains of causes are loops. Pure.

A call made by a running one has a parent in the call table. What happens later has none: the event of a write, a job, a
line that was logged, a call that came over a bridge. So that it is known all the same, the engine writes the causes of
a call into its baggage (`iii.causes`), whether its trace is recorded or not; whoever makes an event, a job or a call
because of it passes the baggage on.

Causes name every function on the way once, each with a tag of its first call. A function that is called because of
itself repeats, and all its repetitions have the tag of that first call in common, however the chain branches. Work
repeats too: a job that puts the next page into the queue, a handler that goes through the steps of its state. A loop is
told by its rate: repetitions come out of a bucket that belongs to the tag, is full at first, and fills slowly. Once it
is empty the chain is stopped, and stays so until it has been quiet for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote, unquote

from msgspec import Struct

CAUSES = "iii.causes"
# Functions that causes name; the oldest is left out first. A circle of more is not seen.
MAX_FUNCTIONS = 32
# Characters of causes in baggage, which has 8192 for everything.
MAX_NAMES = 4096
# Repetitions that a chain may make at once, and how many more for each second: by events, and by jobs.
EVENT_BURST, EVENT_RATE = 100, 20.0
JOB_BURST, JOB_RATE = 1000, 50.0
# How long a stopped chain has to be quiet before it may go on: longer than the first retries of its jobs.
QUIET_TIMEOUT = 60.0
# Chains that are remembered; the one that repeated the longest ago is forgotten first.
MAX_CHAINS = 4096
# How causes name an action, which hands work on on purpose; no function has a space in its id.
ACTION = "action "
# Characters of an id that stand for themselves; `!` separates.
_PLAIN = "#$&'()*+-./:<=>?@[]^_`{|}~"
_TAG = 8


class Causes(Struct, frozen=True, gc=False):
    """The functions that led to a call, outermost first, each with the tag of its first call.

    `engine` wrote them. `depth` is how many calls wait for each other up to here. `names` are the functions as text.
    """

    engine: str
    depth: int
    functions: tuple[tuple[str, str], ...] = ()
    names: str = ""

    def __str__(self) -> str:
        return f"{self.engine}.{self.depth}{self.names}"

    @property
    def is_handed_on(self) -> bool:
        """Whether an action, such as `enqueue`, is among the causes."""
        return any(id.startswith(ACTION) for id, _ in self.functions)

    @property
    def ids(self) -> list[str]:
        return [id for id, _ in self.functions]

    def tag_of(self, function_id: str) -> str | None:
        """Return the tag of a function that is among the causes."""
        for id, tag in self.functions:
            if id == function_id:
                return tag
        return None

    def then(self, engine: str, depth: int, function_id: str, call_id: str) -> Causes:
        """Return the causes of what this call of the function does."""
        if self.tag_of(function_id) is not None:
            return Causes(engine, depth, self.functions, self.names)
        tag = tag_of_call(call_id)
        functions = (*self.functions, (function_id, tag))
        names = f"{self.names}!{tag}{_quoted(function_id)}"
        while len(functions) > MAX_FUNCTIONS or len(names) > MAX_NAMES:
            functions, names = functions[1:], names[names.index("!", 1) :]
        return Causes(engine, depth, functions, names)


_quoted = lru_cache(4096)(lambda id: quote(id, safe=_PLAIN))
NONE = Causes("", 0)


def tag_of_call(call_id: str) -> str:
    """Return a tag that nobody can choose: the hash of strings is keyed, anew in each process."""
    return f"{hash(call_id) & 0xFFFFFFFF:08x}"


def causes_in(baggage: str | None) -> Causes | None:
    """Return the causes in a call's baggage; None without any, and for what no engine has written."""
    if baggage is None or CAUSES not in baggage:
        return None
    for entry in baggage.split(","):
        name, _, text = entry.strip().partition("=")
        if name == CAUSES:
            return causes_from(text)
    return None


def causes_from(text: str) -> Causes | None:
    """Parse causes; None if the text is none."""
    head, separator, names = text.partition("!")
    engine, _, depth = head.partition(".")
    is_number = depth.isascii() and depth.isdigit() and len(depth) < 6
    functions = names.split("!") if separator and len(names) < MAX_NAMES else []
    if not is_number or len(engine) > _TAG or len(functions) > MAX_FUNCTIONS or bool(separator) != bool(functions):
        return None
    return Causes(engine, int(depth), tuple((unquote(one[_TAG:]), one[:_TAG]) for one in functions), separator + names)


def without_causes(baggage: str | None) -> str | None:
    """Return the other entries of the baggage, None without any."""
    if baggage is None or CAUSES not in baggage:
        return baggage
    return ",".join(one for one in baggage.split(",") if one.partition("=")[0].strip() != CAUSES) or None


def with_causes(baggage: str | None, causes: Causes) -> str:
    """Return the baggage with these causes in place of any others."""
    kept = without_causes(baggage)
    return f"{kept},{CAUSES}={causes}" if kept else f"{CAUSES}={causes}"


def joined(all_causes: Iterable[Causes]) -> Causes:
    """Return the causes that several calls have together."""
    functions: dict[str, str] = {}
    for causes in all_causes:
        for id, tag in causes.functions:
            functions.setdefault(id, tag)
    kept = tuple(functions.items())[-MAX_FUNCTIONS:]
    return Causes("", 0, kept, "".join(f"!{tag}{_quoted(id)}" for id, tag in kept))


def limits_of(causes: Causes) -> tuple[int, float]:
    """Return how often a function may repeat at once, and how often each second."""
    return (JOB_BURST, JOB_RATE) if causes.is_handed_on else (EVENT_BURST, EVENT_RATE)


class _Chain(Struct, gc=False):
    """The bucket of one tag. `stopped_until` is 0.0 as long as the chain may go on."""

    tokens: float
    filled_at: float
    stopped_until: float = 0.0


class Loops:
    """The chains that repeat. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._chains: OrderedDict[str, _Chain] = OrderedDict()

    def __len__(self) -> int:
        return len(self._chains)

    def is_stopped(self, function_id: str, causes: Causes, now: float) -> tuple[bool, bool]:
        """Count one more call of a function with these causes; return whether it is refused, and as the first one."""
        tag = causes.tag_of(function_id)
        if tag is None:
            return False, False
        burst, rate = limits_of(causes)
        chain = self._chains.pop(tag, None) or _Chain(float(burst), now)
        self._chains[tag] = chain
        if len(self._chains) > MAX_CHAINS:
            self._chains.popitem(last=False)
        if now < chain.stopped_until:
            chain.stopped_until = now + QUIET_TIMEOUT
            return True, False
        if chain.stopped_until:
            chain.tokens, chain.stopped_until = float(burst), 0.0
        chain.tokens = min(float(burst), chain.tokens + (now - chain.filled_at) * rate)
        chain.filled_at = now
        if chain.tokens >= 1.0:
            chain.tokens -= 1.0
            return False, False
        chain.stopped_until = now + QUIET_TIMEOUT
        return True, True
