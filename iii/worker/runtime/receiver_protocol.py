"""What the dispatcher asks of whoever knows the meaning of messages; `receiver.py` has it. Types only."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections import deque
    from typing import Any, Protocol

    from iii.errors import RemoteProtocolError
    from iii.worker.codec.codec import Message
    from iii.worker.functions.handler import Handler

    class Receiver(Protocol):
        """What the dispatcher hands messages to."""

        def sort(
            self, messages: list[Message | RemoteProtocolError], inbox: deque[Any], here: AbstractEventLoop | None
        ) -> int:
            """Take the answers of a block that the loop `here` or a thread has read; put the rest into `inbox`.

            Returns the thread that waited for the last answer if nobody waits any more, else 0.
            """

        def find_inline(self, message: Message) -> Handler | None:
            """Return the sync handler this message asks to run, None when `receive` shall have it."""

        def run(self, handler: Handler, message: Message) -> None:
            """Run a sync handler and add its result to the outbox."""

        def refuse(self, message: Message) -> None:
            """Answer that no thread is left."""

        def receive(self, message: Message | RemoteProtocolError) -> None:
            """Take any other message; must not block."""

        def ended(self) -> None:
            """The wire has ended."""
