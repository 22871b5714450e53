"""What an alert does when it fires: write to the log, call a function, or post a webhook.

A webhook must not reach into the private network unless the project allows it; `egress` sees to that at every attempt.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from iii import InvocationError, Logger, TriggerAction
from stdlib_workers.egress.client import Client, Request, RequestFailed, ResponseFailed
from stdlib_workers.egress.rules import EgressDenied, Rules, is_public
from stdlib_workers.events import Caller
from stdlib_workers.observability.config.alert_rules import AlertRule, url_and_credentials
from stdlib_workers.values import encode

# After each of the three attempts; after the last interval the webhook has failed.
RETRY_INTERVALS = (1.0, 2.0, 4.0)
# Of one attempt, from the wait for a free slot to the end of the answer.
WEBHOOK_TIMEOUT = 10.0
_HEADERS = (("Content-Type", "application/json"), ("User-Agent", "iii"))
_ALLOW = "set webhook_allow_private = true to allow that"

Sleep = Callable[[float], Awaitable[None]]


class ActionRunner:
    """Runs the action of a rule that fired."""

    def __init__(self, caller: Caller, *, allow_private: bool = False, sleep: Sleep = asyncio.sleep) -> None:
        self._caller = caller
        self._client = Client(Rules(blocks_private=not allow_private, requires_https=False))
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
        url, credentials = url_and_credentials(rule.action.target)
        basic = f"Basic {b64encode(credentials.encode()).decode()}"
        headers = (*_HEADERS, ("Authorization", basic)) if credentials else _HEADERS
        request = Request("POST", url, headers, encode(body), WEBHOOK_TIMEOUT)
        # The path of the address may hold a secret; the host tells the user enough.
        name = f"alert {rule.name}: the webhook at {urlsplit(url).hostname}"
        last_error = ""
        for interval in RETRY_INTERVALS:
            try:
                status = (await self._client.send(request)).status
            except EgressDenied as denied:
                self._log.error(f"{name} is not called: {denied}" + f"; {_ALLOW}" * (denied.reason == "private"))
                return
            except (RequestFailed, ResponseFailed) as error:
                last_error = str(error)
            else:
                if status < 300:
                    return
                last_error = f"it answered {status}"
            await self._sleep(interval)
        self._log.error(f"{name} failed {len(RETRY_INTERVALS)} times: {last_error}")


def warnings_about(rules: Iterable[AlertRule], *, allow_private: bool) -> list[str]:
    """Return a sentence for each webhook that will never be called, because its address is not public."""
    found = []
    for rule in rules if not allow_private else ():
        host = urlsplit(rule.action.target).hostname or ""
        with suppress(ValueError):  # a name: judged when it is called
            if rule.action.kind == "webhook" and not is_public(host):
                found.append(f"the webhook of the alert {rule.name} is at {host}, which is not public; {_ALLOW}")
    return found
