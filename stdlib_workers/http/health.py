"""Answers /healthz and /readyz, for load balancers and container runtimes, where no route has taken these paths."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from iii import InvocationError
from stdlib_workers.http.requests import Request, Trigger

# Milliseconds. The engine answers in less than one; who checks gives up after a few seconds.
TIMEOUT_MS = 2000


class Health:
    """/healthz says whether the engine answers, /readyz whether every worker does its work."""

    def __init__(self, trigger: Trigger) -> None:
        self._trigger = trigger

    async def __call__(self, _: Request, path: list[str]) -> Response | None:
        """Return 200, or 503 with what is wrong."""
        if path not in (["healthz"], ["readyz"]):
            return None
        try:
            found = await self._trigger({"function_id": "engine::health", "payload": {}, "timeout_ms": TIMEOUT_MS})
        except InvocationError as error:
            found = {"status": "unavailable", "error": error.message}
        else:
            found = {"status": "ok"} if path == ["healthz"] else found
        status = 200 if found["status"] in ("ok", "ready") else 503
        return JSONResponse(found, status, {"cache-control": "no-store"})
