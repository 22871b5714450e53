"""Functions that live behind a URL: what `register_function` takes in place of a handler.

The classes have the public SDK's names. They hold no secrets: the auth classes name environment variables of the
worker `http_functions`, which makes the requests.
"""

from __future__ import annotations

from iii.errors import ErrorCode, InvocationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class HttpInvocationModel(Protocol):
        """The public SDK's `HttpInvocationConfig`, a pydantic model."""

        @property
        def url(self) -> str: ...
        def model_dump(self, *, exclude_none: bool) -> dict[str, Any]: ...


class _HttpAuth:
    type = ""

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": self.type, **vars(self)}


class HttpAuthHmac(_HttpAuth):
    """Sign every request with the secret in the environment variable `secret_key`."""

    type = "hmac"

    def __init__(self, secret_key: str) -> None:
        self.secret_key = secret_key


class HttpAuthBearer(_HttpAuth):
    """Send `Authorization: Bearer` with the token in the environment variable `token_key`."""

    type = "bearer"

    def __init__(self, token_key: str) -> None:
        self.token_key = token_key


class HttpAuthApiKey(_HttpAuth):
    """Send the value of the environment variable `value_key` in `header`."""

    type = "api_key"

    def __init__(self, header: str, value_key: str) -> None:
        self.header = header
        self.value_key = value_key


class HttpInvocationConfig:
    """Where a function lives: `url`, `method`, `timeout_ms` (30,000 by default, 60,000 at most), `headers`, `auth`.

    config = HttpInvocationConfig("https://example.com/resize", auth=HttpAuthBearer("RESIZE_TOKEN"))
    worker.register_function("images::resize", config)
    """

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
        """Return the JSON form, without the fields that are None."""
        fields = {**vars(self), "auth": None if self.auth is None else self.auth.to_wire()}
        return {key: value for key, value in fields.items() if value is not None}


def invocation_to_wire(config: Any) -> dict[str, Any]:
    """Return the JSON form of a config: a `HttpInvocationConfig`, or the model of the public SDK's helpers."""
    if isinstance(config, HttpInvocationConfig):
        return config.to_wire()
    return dict(config.model_dump(exclude_none=True))


def refuse_locally(_: Any) -> Any:
    """Stand in for the handler of a function behind a URL, which this process never runs."""
    raise InvocationError(ErrorCode.FUNCTION_NOT_INVOKABLE, "this function lives behind a URL; this worker only has it")
