"""Functions that live behind a URL: what `register_function` takes in place of a handler.

The classes of the public SDK, by its names. Secrets are never here: auth names environment variables of the engine's
worker `http_functions`, which makes the requests.
"""

from __future__ import annotations

from iii.errors import ErrorCode, InvocationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class HttpAuthHmac:
    """Sign every request with the secret in the environment variable `secret_key`."""

    def __init__(self, secret_key: str) -> None:
        self.secret_key = secret_key

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": "hmac", "secret_key": self.secret_key}


class HttpAuthBearer:
    """Send `Authorization: Bearer` with the token in the environment variable `token_key`."""

    def __init__(self, token_key: str) -> None:
        self.token_key = token_key

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": "bearer", "token_key": self.token_key}


class HttpAuthApiKey:
    """Send the value of the environment variable `value_key` in `header`."""

    def __init__(self, header: str, value_key: str) -> None:
        self.header = header
        self.value_key = value_key

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": "api_key", "header": self.header, "value_key": self.value_key}


class HttpInvocationConfig:
    """Where a function lives: `url`, `method`, `timeout_ms` (30,000 by default, 60,000 at most), `headers`, `auth`."""

    def __init__(
        self,
        url: str,
        method: str = "POST",
        timeout_ms: int | None = None,
        headers: dict[str, str] | None = None,
        auth: HttpAuthHmac | HttpAuthBearer | HttpAuthApiKey | None = None,
    ) -> None:
        self.url = url
        self.method = method
        self.timeout_ms = timeout_ms
        self.headers = headers
        self.auth = auth

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form."""
        fields = {"timeout_ms": self.timeout_ms, "headers": self.headers}
        auth = {} if self.auth is None else {"auth": self.auth.to_wire()}
        known = {key: value for key, value in fields.items() if value is not None}
        return {"url": self.url, "method": self.method, **known, **auth}


def invocation_to_wire(config: Any) -> dict[str, Any]:
    """Return the JSON form of a config, ours or the model of the public SDK's helpers."""
    if isinstance(config, HttpInvocationConfig):
        return config.to_wire()
    return dict(config.model_dump(exclude_none=True))


def refuse_locally(_: Any) -> Any:
    """Stand in for the handler: such a function is run by nobody here."""
    raise InvocationError(ErrorCode.FUNCTION_NOT_INVOKABLE, "this function lives behind a URL; this worker only has it")
