"""The types of channels, in the public SDK's module of this name. The code is in `iii/worker/channels.py`."""

from __future__ import annotations

from iii.worker.channels import Channel, ChannelReader, ChannelWriter, StreamChannelRef

__all__ = ["Channel", "ChannelReader", "ChannelWriter", "StreamChannelRef"]
