"""What an alert does when it fires: write to the log, call a function, or post a webhook.

A webhook must not reach into the private network unless the project allows it, neither by its name nor by what that
name resolves to at the moment of connecting: the connection is made to the very address that was checked.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from iii import InvocationError, Logger, TriggerAction
from stdlib_workers.egress.client import resolve
from stdlib_workers.egress.rules import is_public
from stdlib_workers.events import Caller
from stdlib_workers.observability.config.alert_rules import AlertRule
from stdlib_workers.values import encode

# After each of the three attempts; after the last interval the webhook has failed.
RETRY_INTERVALS = (1.0, 2.0, 4.0)
# For connecting, and for each read of the answer.
WEBHOOK_TIMEOUT = 10.0
MAX_RESPONSE = 64 * 1024

Sleep = Callable[[float], Awaitable[None]]


class WebhookRefused(Exception):
    """The project does not allow this address; another attempt changes nothing."""


class ActionRunner:
    """Runs the action of a rule that fired."""

    def __init__(self, caller: Caller, *, allow_private: bool = False, sleep: Sleep = asyncio.sleep) -> None:
        self._caller = caller
        self._allow_private = allow_private
        self._sleep = sleep
        self._log = Logger(service_name="alerts")

    async def run(self, rule: AlertRule, value: float, now: int) -> None:
        """Run the action of a rule that fired; `now` in milliseconds. A failure is logged."""
        body = {"alert": rule.name, **rule.reading(value), "timestamp": now}
        if rule.action.kind == "webhook":
            await self._post(rule, body)
        elif rule.action.kind == "function":
            request = {
                "function_id": rule.action.target,
                "payload": {**body, "firing": True},
                "action": TriggerAction.Void(),
                "namespace": "default",
            }
            try:
                await self._caller.trigger_async(request)
            except InvocationError as error:
                self._log.error(f"alert {rule.name}: {rule.action.target} could not be called: {error}")
        else:
            text = f"alert {rule.name}: {rule.metric} is {value}, {body['operator']} {rule.threshold}"
            self._log.warn(text, body)

    async def _post(self, rule: AlertRule, body: dict[str, Any]) -> None:
        send = partial(post, rule.action.target, encode(body), allow_private=self._allow_private)
        last_error: Exception | None = None
        for interval in RETRY_INTERVALS:
            try:
                status = await asyncio.to_thread(send)
            except WebhookRefused as refused:
                self._log.error(f"alert {rule.name}: {refused}")
                return
            except (OSError, http.client.HTTPException) as error:
                last_error = error
            else:
                if status < 300:
                    return
                last_error = OSError(f"it answered {status}")
            await self._sleep(interval)
        # The path of the address may hold a secret; the host tells the user enough.
        host = urlsplit(rule.action.target).hostname
        self._log.error(f"alert {rule.name}: the webhook at {host} failed {len(RETRY_INTERVALS)} times: {last_error}")


def post(url: str, body: bytes, *, allow_private: bool = False) -> int:
    """POST JSON and return the status; no redirect is followed. WebhookRefused for an address that is not allowed."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WebhookRefused("a webhook is an http or https address")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = resolve(parts.hostname, port)
    # All of them are checked: else a name with a public and a private address gets around the check.
    refused = None if allow_private else next((address for address in addresses if not is_public(address)), None)
    if refused is not None:
        raise WebhookRefused(
            f"the webhook at {parts.hostname} is at {refused}, which is not public; "
            "set webhook_allow_private = true to allow that"
        )
    connection = http.client.HTTPConnection(parts.hostname, port)
    # Connected here to the address that was checked: `http.client` would resolve the name again.
    connection.sock = socket.create_connection((addresses[0], port), WEBHOOK_TIMEOUT)
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=parts.hostname)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, {"content-type": "application/json", "user-agent": "iii"})
        response = connection.getresponse()
        response.read(MAX_RESPONSE)
        return response.status
    finally:
        connection.close()
