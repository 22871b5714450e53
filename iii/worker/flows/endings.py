"""What ends the body of a flow before it returns. BaseExceptions: `except Exception` of a body lets them pass."""

from __future__ import annotations


class FlowParked(BaseException):
    """The run waits, and its body ends here: it is called again later. Let it pass."""


class FlowCancelled(BaseException):
    """The run was cancelled. Steps that are made while this passes are its cleanup, for a minute at most."""
