"""Guarded requests to addresses that users choose: for HTTP-invoked functions and webhooks.

What the requests are for is the workers' own.
"""

from stdlib_workers.egress.client import Request, RequestFailed, Response, ResponseFailed, send
from stdlib_workers.egress.rules import EgressDenied, Rules, rules_from

__all__ = ["EgressDenied", "Request", "RequestFailed", "Response", "ResponseFailed", "Rules", "rules_from", "send"]
