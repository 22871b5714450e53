"""JSON values as the standard workers treat them: payload fields, bytes, and the update operations. Pure."""

from stdlib_workers.values.payload import Payload, malformed
from stdlib_workers.values.text import decode, encode
from stdlib_workers.values.updates import Update, apply_updates, parse_updates

__all__ = ["Payload", "Update", "apply_updates", "decode", "encode", "malformed", "parse_updates"]
