"""What is known of each target: what limits it, what was tried. Shown in RESULTS.md beside a miss."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import Row

NOTES = {
    "B1": "Four wake-ups are most of one call. Waking an idle CPU costs 30 to 50 µs and a switch on the same one 3 "
    "to 5, so the placement by the kernel decides more than the engine does. Where it may use more than one CPU it "
    "looks for the next event a moment longer before it sleeps, which took the p50 from 54 to 31 µs. Bound to one CPU, "
    "as in `same` and `split`, it does not: then each call pays for two turns of the event loop alone, with cold "
    "caches, ten times the CPU of a call among 64.",
    "B2": "The engine decodes two heads and makes two dictionary changes for a call, about 3 µs in Python; asyncio's "
    "streams (0.13x), a write for each message (half) and collecting several reads before writing (no gain) were "
    "tried. In the profile the kernel has less than a tenth; what is left is the interpreter.",
    "B3": "The relay in C passes on 64 KiB at a time while both ends work. The engine puts a line together before it "
    "passes it on: a slow sender must not hold up its callee's other calls. The payload is not read, and copied once; "
    "it was 0.13x before that.",
    "B4": "The handler runs on the reading thread; thread pools gave 0.03x to 0.12x. Of the callee's instructions "
    "three tenths parse and prove that no key stands twice, a quarter is the answer, a seventh the handler with its "
    "context. They went from 43,600 to 31,800 a call in blocks of 64; a decoder that makes message and invocation one "
    "object would save another 4,000 or so.",
    "B5": "Both ends are Python, and besides the engine nobody looks for the next event before it sleeps: one call in "
    "flight wakes two sleeping processes. With threads as callers the interpreter lock goes from hand to hand at every "
    "result; an async caller gets several times as many calls through, and pays 66,000 instructions for each (85,000 "
    "before), a future, a step of its task and two turns of its loop among them.",
    "B6": "Without anybody between them two processes need two wake-ups for a call where ours need four; that is the "
    "price of an engine that knows functions, checks payloads and outlives a callee. With a proxy between them "
    "the comparison is even.",
    "B7": "Ways are found by dictionaries, so nothing should grow; a larger figure comes from caches of the CPU.",
    "B8": "The interpreter with the event loop, the codec and the schema checker is most of an idle engine.",
    "B9": "A worker needs 2.5 times the CPU of a bare interpreter until it is ready (the SDK's modules, `threading`), "
    "two start at a time so that those who serve are not starved, and eight of ten wait for the engine's own imports. "
    "Starting the first two before the engine is loaded and later imports took a start from 7x to 4x. Of a save, 60 ms "
    "are the silence that ends it and 10 on average the watcher's step; the rest is the new worker's start.",
    "B10": "A neighbor that floods keeps a CPU and the engine busy; with two CPUs the others wait for a turn of the "
    "kernel's scheduler, which is milliseconds, before any of our queues counts: reads of 16 KiB instead of 64, so a "
    "quarter of the work between two looks at the others, took a tenth to a quarter off the p99. Calls that nobody "
    "waits for, which this neighbor makes, went from 13.5 to 5 µs.",
    "B11": "Both sides parse and mask the same frames.",
}
ALONE = "Nothing is known of it yet: profile it before it is trusted."


def misses(rows: Sequence[Row]) -> str:
    """Return a section on the rows that missed their targets, nothing when none did."""
    missed = [row for row in rows if row.verdict == "miss"]
    lines = [f"- **{row.name}, {row.what}** ({row.ratio:.2f}x): {NOTES.get(row.name, ALONE)}" for row in missed]
    return "\n".join(["## Missed", "", *lines, ""]) if lines else ""
