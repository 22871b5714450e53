"""What an alert does when it fires: a line in the log, a function called, a webhook posted.

A webhook must not reach into the private network unless the project allows it, neither by its name nor by what that
name resolves to at the moment of connecting: the connection is made to the very address that was checked.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urlsplit

from iii import InvocationError, Logger, TriggerAction
from stdlib_workers.events import Caller
from stdlib_workers.observability.config.alert_rules import Rule, webhook_from
from stdlib_workers.values import encode

# Seconds after each of three tries; the last pause ends with giving up.
PAUSES = (1.0, 2.0, 4.0)
TIMEOUT = 10.0
MAX_ANSWER = 64 * 1024

Sleep = Callable[[float], Awaitable[None]]


class WebhookRefused(Exception):
    """The address must not be asked; trying again changes nothing."""


class Actions:
    """Carries out what rules ask for."""

    def __init__(self, caller: Caller, *, allow_private: bool = False, sleep: Sleep = asyncio.sleep) -> None:
        self._caller = caller
        self._allow_private = allow_private
        self._sleep = sleep
        self._log = Logger(service_name="alerts")

    async def act(self, rule: Rule, value: float, now: int) -> None:
        """Do what the rule says; failures are told in the log."""
        facts = webhook_from(rule, value, now)
        if rule.action.kind == "webhook":
            await self._post(rule, facts)
        elif rule.action.kind == "function":
            await self._call(rule, facts)
        else:
            text = f"alert {rule.name}: {rule.metric} is {value}, {facts['operator']} {rule.threshold}"
            self._log.warn(text, facts)

    async def _call(self, rule: Rule, facts: dict[str, Any]) -> None:
        request = {
            "function_id": rule.action.target,
            "payload": {**facts, "firing": True},
            "action": TriggerAction.Void(),
            "namespace": "default",
        }
        try:
            await self._caller.trigger_async(request)
        except InvocationError as error:
            self._log.error(f"alert {rule.name}: {rule.action.target} could not be called: {error}")

    async def _post(self, rule: Rule, facts: dict[str, Any]) -> None:
        send = partial(post, rule.action.target, encode(facts), allow_private=self._allow_private)
        last: Exception | None = None
        for pause in PAUSES:
            try:
                status = await asyncio.to_thread(send)
            except WebhookRefused as refused:
                self._log.error(f"alert {rule.name}: {refused}")
                return
            except (OSError, http.client.HTTPException) as error:
                last = error
            else:
                if status < 300:
                    return
                last = OSError(f"it answered {status}")
            await self._sleep(pause)
        # The address may hold a secret in its path; its host is enough to find it.
        host = urlsplit(rule.action.target).hostname
        self._log.error(f"alert {rule.name}: the webhook at {host} failed {len(PAUSES)} times: {last}")


def post(url: str, body: bytes, *, allow_private: bool = False) -> int:
    """POST JSON and return the status. WebhookRefused for an address that must not be asked. Follows no redirect."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WebhookRefused("a webhook is an http or https address")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = checked_address(parts.hostname, port, allow_private=allow_private)
    connection = _Pinned(parts.hostname, port, address, is_tls=parts.scheme == "https")
    try:
        connection.request("POST", _target(parts), body, {"content-type": "application/json", "user-agent": "iii"})
        answer = connection.getresponse()
        answer.read(MAX_ANSWER)
        return answer.status
    finally:
        connection.close()


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def checked_address(host: str, port: int, *, allow_private: bool) -> str:
    """Return an address of a host that may be asked. WebhookRefused when one of them is not public."""
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not allow_private:
        # All must be public: a name with one address of each kind is the way around a check of the first.
        refused = next((address for address in found if not is_public(address)), None)
        if refused is not None:
            raise WebhookRefused(
                f"the webhook at {host} is at {refused}, which is not public; "
                "set webhook_allow_private = true to allow that"
            )
    return found[0]


def is_public(address: str) -> bool:
    """Tell whether an address belongs to the public internet."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    if inner is not None:
        return is_public(str(inner))
    return parsed.is_global and not parsed.is_multicast


class _Pinned(http.client.HTTPConnection):
    """A connection to one checked address under the name of its host."""

    def __init__(self, host: str, port: int, address: str, *, is_tls: bool) -> None:
        super().__init__(host, port, timeout=TIMEOUT)
        self._address = address
        self._context = ssl.create_default_context() if is_tls else None

    def connect(self) -> None:
        """Connect to the address that was checked, not to what the name resolves to by now."""
        connected = socket.create_connection((self._address, self.port), self.timeout)
        if self._context is None:
            self.sock = connected
        else:
            self.sock = self._context.wrap_socket(connected, server_hostname=self.host)
