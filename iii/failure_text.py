"""How a failure of a function is worded so that the function is named once: most errors name it, some do not. Pure."""

from __future__ import annotations


def named(function_id: str, message: str) -> str:
    """Return the message of an error, with the function before it if it does not name it."""
    words = (word.strip(".,:;!?()'\"`") for word in message.split())
    return message if function_id in words else f"{function_id}: {message}"


def unnamed(function_id: str, message: str) -> str:
    """Return the message of an error without the function that it begins with, for a text that has named it."""
    for name in (f"{function_id}: ", f"{function_id} "):
        if message.startswith(name):
            return message.removeprefix(name)
    return message
