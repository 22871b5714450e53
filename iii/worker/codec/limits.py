"""The limits of a message, for both halves of the codec: constants only."""

from __future__ import annotations

# Payloads nested deeper than this are an attack or a mistake; the message around one adds a level.
MAX_DEPTH = 64
# Both are the same in `iii.protocol.shape`, which short messages do not load.
MAX_NODES = 200_000
MAX_INTEGER = 2**64 - 1
MIN_INTEGER = -(2**63)
# The same as `iii.protocol.lines.MAX_LINE`; that module loads `dataclasses`, which costs a worker's start more than
# the rest of the SDK.
MAX_LINE = 16 * 1024 * 1024
# Bytes at the start of a line that cannot be parsed in which its invocation id is looked for.
HEAD = 4096
