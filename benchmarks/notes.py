"""What is known of each target: what limits it, what was tried. Shown in RESULTS.md beside a miss."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import Row

NOTES = {
    "B1": "Four wake-ups are most of one call. Waking an idle CPU costs 30 to 50 µs and a switch on the same one 3 "
    "to 5, so the placement by the kernel decides more than the engine's own 20 to 30 µs; compare the `same` "
    "and `split` runs.",
    "B2": "The engine decodes two heads and makes two dictionary changes for a call, about 3 µs in Python; asyncio's "
    "streams (0.13x) and a write for each message (half) were tried. In the profile the kernel has less than a tenth; "
    "what is left is the interpreter.",
    "B3": "The relay in C passes on 64 KiB at a time while both ends work. The engine puts a line together before it "
    "passes it on: a slow sender must not hold up its callee's other calls. The payload is not read, and copied once.",
    "B4": "The handler runs on the reading thread; thread pools gave 0.03x to 0.12x. What is left is JSON and the "
    "interpreter.",
    "B5": "Both ends are Python. With threads as callers the interpreter lock goes from hand to hand at every "
    "result; an async caller gets several times as many calls through.",
    "B6": "Without anybody between them two processes need two wake-ups for a call where ours need four; that is the "
    "price of an engine that knows functions, checks payloads and outlives a callee. With a proxy between them "
    "the comparison is even.",
    "B7": "Ways are found by dictionaries, so nothing should grow; a larger figure comes from caches of the CPU.",
    "B8": "The interpreter with the event loop, the codec and the schema checker is most of an idle engine.",
    "B9": "Most of a start is the interpreter and its imports; with fewer CPUs than workers the starts wait for each "
    "other.",
    "B10": "A neighbor that floods keeps a CPU and the engine busy; with two CPUs the others wait for a turn of the "
    "kernel's scheduler, which is milliseconds, before any of our queues counts: reads of 16 KiB instead of 64, so a "
    "quarter of the work between two looks at the others, changed the p99 by a tenth.",
    "B11": "Both sides parse and mask the same frames.",
}
ALONE = "Nothing is known of it yet: profile it before it is trusted."


def misses(rows: Sequence[Row]) -> str:
    """Return a section on the rows that missed their targets, nothing when none did."""
    missed = [row for row in rows if row.verdict == "miss"]
    lines = [f"- **{row.name}, {row.what}** ({row.ratio:.2f}x): {NOTES.get(row.name, ALONE)}" for row in missed]
    return "\n".join(["## Missed", "", *lines, ""]) if lines else ""
