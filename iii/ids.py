"""Invocation, trigger and registration ids: 128 random bits, written as a UUID.

Random and not counted, so that a program that prints text cannot guess the id of a call and answer it. Minted in
batches, because a system call for each id would cost as much as encoding its message.
"""

from __future__ import annotations

import os

# One read of the kernel's pool serves this many ids.
BATCH = 128

_minted: list[str] = []
# A forked child must not hand out the ids of its parent.
os.register_at_fork(after_in_child=_minted.clear)


def mint_id() -> str:
    """Return a new id like `8c7bd2b1-5a0e-4f6e-9a53-0f6d2f3c1a77`. Safe to call from any thread."""
    while True:
        try:
            return _minted.pop()
        except IndexError:
            _minted.extend(uuids_from_bytes(os.urandom(16 * BATCH)))


def uuids_from_bytes(noise: bytes) -> list[str]:
    """Cut `noise` into ids of 16 bytes each."""
    from struct import unpack  # a worker that makes no calls mints hardly any

    count = len(noise) // 16
    # All at once: cutting each id out by itself takes twice the time.
    groups = unpack("8s4s4s4s12s" * count, noise.hex().encode())
    return (b"%b-%b-%b-%b-%b\n" * count % groups).decode().split()
