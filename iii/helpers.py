"""Functions over a worker, in the public SDK's module of this name: channels, and streams that a worker stores."""

from __future__ import annotations

from enum import StrEnum

from iii.worker.channels import Channel, extract_channel_refs, is_channel_ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from iii.stream import IStream
    from iii.worker.worker import Worker

__all__ = ["ChannelDirection", "ChannelItem", "create_channel", "create_channel_async", "create_stream"]
__all__ += ["extract_channel_refs", "is_channel_ref"]


class ChannelDirection(StrEnum):
    """The `direction` of a reference to one end of a channel."""

    READ = "read"
    WRITE = "write"


class ChannelItem:
    """One message of a channel: a `text`, or bytes as `binary`. ValueError unless it is exactly one of them."""

    def __init__(self, text: str | None = None, binary: bytes | None = None) -> None:
        if (text is None) == (binary is None):
            raise ValueError("a channel's item is either a text or binary")
        self.text = text
        self.binary = binary

    @classmethod
    def text_item(cls, value: str) -> ChannelItem:
        """Return the item of a text message."""
        return cls(text=value)

    @classmethod
    def binary_item(cls, value: bytes) -> ChannelItem:
        """Return the item of bytes."""
        return cls(binary=value)

    @property
    def is_text(self) -> bool:
        """Whether the item is a text message."""
        return self.text is not None

    @property
    def is_binary(self) -> bool:
        """Whether the item is bytes."""
        return self.binary is not None


def create_channel(worker: Worker, buffer_size: int | None = None) -> Channel:
    """Make a channel: `worker.create_channel(buffer_size)`."""
    return worker.create_channel(buffer_size)


async def create_channel_async(worker: Worker, buffer_size: int | None = None) -> Channel:
    """Make a channel: `await worker.create_channel_async(buffer_size)`."""
    return await worker.create_channel_async(buffer_size)


def create_stream(worker: Worker, stream_name: str, stream: IStream[Any]) -> None:
    """Store the items of a stream in `stream` instead of in the stream worker, which calls it from then on.

    Its methods get the inputs of `iii.stream` and return the results: `get` the item or None, `list` the items,
    `list_groups` the ids. ValueError when this worker has a stream of that name already.

        create_stream(worker, "orders", OrdersInPostgres())
    """
    from iii import stream as inputs  # few workers store streams themselves

    def register(operation: str, input_class: Any) -> None:
        method, names = getattr(stream, operation), input_class.__dataclass_fields__

        async def handle(payload: dict[str, Any]) -> Any:
            result = await method(input_class(**{name: payload.get(name) for name in names}))
            # A model of pydantic, as the public SDK's results are: its None is a value here.
            dump = getattr(result, "model_dump", None)
            return result if dump is None else dump()

        worker.register_function(f"stream::{operation}({stream_name})", handle)

    register("get", inputs.StreamGetInput)
    register("set", inputs.StreamSetInput)
    register("delete", inputs.StreamDeleteInput)
    register("list", inputs.StreamListInput)
    register("list_groups", inputs.StreamListGroupsInput)
    register("update", inputs.StreamUpdateInput)
