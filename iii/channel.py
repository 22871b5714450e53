"""The types of channels, under the public SDK's name. Names only; `iii/worker/channels/channels.py` has the code."""

from __future__ import annotations

from iii.worker.channels.channels import Channel, ChannelReader, ChannelWriter, StreamChannelRef

__all__ = ["Channel", "ChannelReader", "ChannelWriter", "StreamChannelRef"]
