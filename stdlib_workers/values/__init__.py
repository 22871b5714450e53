"""JSON values in the standard workers: payload fields, options, bytes, and the update operations."""

from stdlib_workers.values.environment import end_worker, read_options
from stdlib_workers.values.equality import json_equal
from stdlib_workers.values.limits import check_change
from stdlib_workers.values.options import OptionError, check_config, check_names, in_memory, integer
from stdlib_workers.values.payload import Payload, decode, encode, malformed
from stdlib_workers.values.updates import apply_updates, parse_updates

__all__ = [
    "OptionError",
    "Payload",
    "apply_updates",
    "check_change",
    "check_config",
    "check_names",
    "decode",
    "encode",
    "end_worker",
    "in_memory",
    "integer",
    "json_equal",
    "malformed",
    "parse_updates",
    "read_options",
]
