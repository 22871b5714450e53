"""Requests to addresses that somebody else chose, guarded: for HTTP-invoked functions and webhooks.

Shared by standard workers; knows nothing of what the requests are for.
"""

from stdlib_workers.egress.client import Request, RequestFailed, Response, ResponseFailed, send
from stdlib_workers.egress.rules import EgressDenied, Rules, rules_from

__all__ = [
    "EgressDenied",
    "Request",
    "RequestFailed",
    "Response",
    "ResponseFailed",
    "Rules",
    "rules_from",
    "send",
]
