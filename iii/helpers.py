"""Making channels, under the names the public SDK gives these functions."""

from __future__ import annotations

from iii.worker.channels.channels import Channel, extract_channel_refs, is_channel_ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from iii.worker.worker import Worker

__all__ = ["create_channel", "create_channel_async", "extract_channel_refs", "is_channel_ref"]


def create_channel(worker: Worker, buffer_size: int | None = None) -> Channel:
    """Make a channel that holds back its writer once `buffer_size` messages (64 by default) wait for the reader.

    An end that nobody takes within five minutes ends the channel. InvocationError as of any call.
    """
    return Channel(worker._channel_connector, worker.trigger("engine::channels::create", {"buffer_size": buffer_size}))


async def create_channel_async(worker: Worker, buffer_size: int | None = None) -> Channel:
    """As `create_channel`, without blocking the event loop."""
    made = await worker.trigger_async("engine::channels::create", {"buffer_size": buffer_size})
    return Channel(worker._channel_connector, made)
