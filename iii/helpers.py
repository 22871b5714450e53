"""Functions that make channels, in the public SDK's module of this name."""

from __future__ import annotations

from iii.worker.channels import Channel, extract_channel_refs, is_channel_ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from iii.worker.worker import Worker

__all__ = ["create_channel", "create_channel_async", "extract_channel_refs", "is_channel_ref"]


def create_channel(worker: Worker, buffer_size: int | None = None) -> Channel:
    """Make a channel whose writer blocks once `buffer_size` messages (64 by default) wait for the reader.

    `channel.writer` and `channel.reader` are used here; `writer_ref` or `reader_ref` travels in a payload.
    The channel ends when one of its ends is not opened within five minutes. InvocationError as of any call.

        channel = create_channel(worker)
        worker.trigger({"function_id": "files::read", "payload": {"into": channel.writer_ref}})
    """
    return Channel(worker._channel_connector, worker.trigger("engine::channels::create", {"buffer_size": buffer_size}))


async def create_channel_async(worker: Worker, buffer_size: int | None = None) -> Channel:
    """As `create_channel`, without blocking the event loop."""
    refs = await worker.trigger_async("engine::channels::create", {"buffer_size": buffer_size})
    return Channel(worker._channel_connector, refs)
