"""What a function returns where a JSON value is not all: a whole http response, and one server-sent event.

On the wire both are objects with the key `$iii`, which says what they are; a plain object is always a plain value.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from typing import Any, Literal

# The key of what is more than a plain value.
MARK = "$iii"
# A result's line may have 16 MiB, and base64 makes a third more of a file.
MAX_FILE = 11 * 1024 * 1024
_BREAKS = "\r\n\0"


class Response:
    """An http response: `Response(body, status=200, headers={...}, content_type=...)`.

    A text is sent as it is, as `text/plain` unless `content_type` says else; bytes likewise, as
    `application/octet-stream`; None is no body; any other value is JSON. `headers` maps names to a text, or to a list
    for several of one name. ValueError for a status outside of 200 to 599 and for a line break in a header.

        @worker.get("/robots.txt")
        def robots() -> Response:
            return Response("User-agent: *", headers={"cache-control": "max-age=3600"})
    """

    def __init__(
        self,
        body: object = None,
        *,
        status: int = 200,
        headers: Mapping[str, str | list[str]] | None = None,
        content_type: str | None = None,
    ) -> None:
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"the status of a response is a number from 200 to 599, not {status!r}")
        self.status = status
        self.body = body
        self.headers: dict[str, str | list[str]] = {}
        given = {**(headers or {}), **({} if content_type is None else {"Content-Type": content_type})}
        for name, value in given.items():
            for text in (name, *(value if isinstance(value, list) else [value])):
                _check_text(text, "a header")
            self.headers[name.lower()] = list(value) if isinstance(value, list) else value
        if isinstance(body, str):
            self.headers.setdefault("content-type", "text/plain; charset=utf-8")
        elif isinstance(body, bytes):
            self.headers.setdefault("content-type", "application/octet-stream")

    def set_cookie(
        self,
        name: str,
        value: str = "",
        *,
        max_age: int | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Literal["lax", "strict", "none"] = "lax",
    ) -> Response:
        """Add a cookie, `max_age` in seconds, and return the response. ValueError for what a cookie cannot hold."""
        for text in (name, value, path, domain or ""):
            _check_text(text, "a cookie", also=";,")
        if not name or "=" in name or any(blank in name for blank in " \t"):
            raise ValueError(f"{name!r} is no name of a cookie")
        parts = [f"{name}={value}", f"Path={path}", f"SameSite={samesite.capitalize()}"]
        parts += [f"Max-Age={max_age}"] * (max_age is not None) + [f"Domain={domain}"] * (domain is not None)
        parts += ["Secure"] * (secure or samesite == "none") + ["HttpOnly"] * httponly
        cookies = self.headers.get("set-cookie", [])
        self.headers["set-cookie"] = [*([cookies] if isinstance(cookies, str) else cookies), "; ".join(parts)]
        return self

    def delete_cookie(self, name: str, *, path: str = "/", domain: str | None = None) -> Response:
        """Let the client forget a cookie, and return the response."""
        return self.set_cookie(name, max_age=0, path=path, domain=domain)

    @classmethod
    def redirect(cls, url: str, *, status: int = 307) -> Response:
        """Return a response that sends the client to `url`."""
        return cls(status=status, headers={"location": url})

    @classmethod
    def file(
        cls, path: str | PathLike[str], *, filename: str | None = None, content_type: str | None = None
    ) -> Response:
        """Return a response with the content of a file; its type is guessed from its name.

        With `filename` the client saves it under that name. OSError when it cannot be read, ValueError over 11 MiB:
        larger files belong into the http worker's `static` folder or a channel.
        """
        import mimetypes  # few workers send files
        from os import fspath
        from urllib.parse import quote

        with open(path, "rb") as opened:
            content = opened.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise ValueError(
                f"{fspath(path)} is larger than the {MAX_FILE} bytes of a response; "
                "put it into the http worker's static folder, or send it through a channel"
            )
        kind = content_type or mimetypes.guess_type(fspath(path))[0] or "application/octet-stream"
        headers = {"content-type": kind}
        if filename is not None:
            headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
        return cls(content, headers=headers)

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of a response on the wire."""
        return _marked_schema("response")

    def model_dump(self, **_: Any) -> dict[str, Any]:
        """Return the JSON form."""
        fields: dict[str, Any] = {MARK: "response", "status_code": self.status, "headers": self.headers}
        if isinstance(self.body, bytes):
            return {**fields, "body_base64": self.body}
        return fields if self.body is None else {**fields, "body": self.body}

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


class Event:
    """One server-sent event of a generator: its data, and how the client is to take it.

    `data` is a text or a JSON value; `event` the name that the client listens for; `id` comes back as `last-event-id`
    when the client connects again, after `retry` milliseconds. ValueError for a line break in `event` or `id`.

        @worker.get("/ticks")
        def ticks() -> Iterator[Event]:
            for number in range(3):
                yield Event({"number": number}, event="tick", id=str(number))
    """

    def __init__(
        self, data: object = None, *, event: str | None = None, id: str | None = None, retry: int | None = None
    ) -> None:
        for text in (event, id):
            if text is not None:
                _check_text(text, "the name and the id of an event")
        if retry is not None and (isinstance(retry, bool) or not isinstance(retry, int) or retry < 0):
            raise ValueError(f"retry is a number of milliseconds, not {retry!r}")
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of an event on the wire."""
        return _marked_schema("event")

    def model_dump(self, **_: Any) -> dict[str, Any]:
        """Return the JSON form."""
        fields = {"event": self.event, "id": self.id, "retry": self.retry}
        return {MARK: "event", "data": self.data, **{key: value for key, value in fields.items() if value is not None}}

    def __repr__(self) -> str:
        return f"<Event {self.event or 'message'}>"


def _marked_schema(kind: str) -> dict[str, Any]:
    return {"type": "object", "properties": {MARK: {"const": kind}}, "required": [MARK]}


def _check_text(text: object, of: str, *, also: str = "") -> None:
    if not isinstance(text, str):
        raise ValueError(f"{of} is made of texts, not of {text!r}")
    wrong = next((sign for sign in text if sign in _BREAKS or sign in also), None)
    if wrong is not None:
        raise ValueError(f"{of} cannot hold {wrong!r}, as {text!r} does")
