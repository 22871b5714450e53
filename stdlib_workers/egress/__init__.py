"""Guarded requests to addresses that users choose: for HTTP-invoked functions and webhooks.

What the requests are for is the workers' own.
"""
