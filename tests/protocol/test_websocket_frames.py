"""The header of a WebSocket frame, held against the library's own writer, for both directions."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from iii.protocol.websocket_frames import CONTINUATION, FINAL, MASKED, TEXT, header


@pytest.mark.parametrize("size", [0, 1, 125, 126, 0xFFFF, 0x10000])
@pytest.mark.parametrize("is_final", [True, False])
@pytest.mark.parametrize(("opcode", "name"), [(TEXT, Opcode.TEXT), (CONTINUATION, Opcode.CONT)])
def test_a_header_is_the_one_of_the_library(size: int, is_final: bool, opcode: int, name: Opcode) -> None:
    frame = Frame(name, b"x" * size, fin=is_final)
    first = opcode | FINAL if is_final else opcode
    assert header(first, size) + b"x" * size == frame.serialize(mask=False)
    masked = header(first, size, MASKED)
    assert frame.serialize(mask=True).startswith(masked)
    assert len(masked) + 4 + size == len(frame.serialize(mask=True))
