"""JSON values in the standard workers: payload fields, options, bytes, and the update operations. Pure."""

from stdlib_workers.values.json_bytes import decode, encode
from stdlib_workers.values.options import OptionError, check_names, in_memory, integer
from stdlib_workers.values.payload import Payload, malformed
from stdlib_workers.values.updates import Update, apply_updates, parse_updates

__all__ = [
    "OptionError",
    "Payload",
    "Update",
    "apply_updates",
    "check_names",
    "decode",
    "encode",
    "in_memory",
    "integer",
    "malformed",
    "parse_updates",
]
