"""What a function may ask of an http request beside its own parameters: the request itself, and uploaded files.

Both classes describe and make themselves from JSON as models do (`model_json_schema`, `model_validate`), so a schema
and a conversion know no more of them than of any other model.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Request:
    """One http request, for a parameter with this annotation.

    `method`; `path`, the pattern of the route; `path_params`, `query_params` (of repeated ones the last),
    `query_params_all` (lists), `headers` (lower case), `body` (decoded, None without one). All are texts but the body.

        @worker.get("/whoami")
        def whoami(request: Request) -> str:
            return request.headers.get("user-agent", "nobody")
    """

    def __init__(self, event: dict[str, Any]) -> None:
        self.method: str = event.get("method") or "GET"
        self.path: str = event.get("path") or ""
        self.path_params: dict[str, str] = event.get("path_params") or {}
        self.query_params: dict[str, str] = event.get("query_params") or {}
        self.query_params_all: dict[str, list[str]] = event.get("query_params_all") or {}
        self.headers: dict[str, str] = event.get("headers") or {}
        self.body: Any = event.get("body")

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name, as they were sent but without quotes."""
        pairs = (part.partition("=") for part in self.headers.get("cookie", "").split(";"))
        return {name.strip(): value.strip().strip('"') for name, equals, value in pairs if equals}

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of a request."""
        return {"type": "object", "description": "The http request."}

    @classmethod
    def model_validate(cls, value: Any) -> Request:
        """Return the request in an http event. ValueError for what is no object."""
        if not isinstance(value, dict):
            raise ValueError(f"{value!r} is not an object")
        return cls(value)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"


class File:
    """An uploaded file, for a parameter with this annotation (`list[File]` for several of one name).

    `filename`, `content_type`, `size` in bytes, `content` as bytes.

        @worker.post("/photos")
        def upload(photo: File) -> dict[str, object]:
            return {"name": photo.filename, "bytes": len(photo.content)}
    """

    def __init__(self, content_base64: str, filename: str = "", content_type: str = "application/octet-stream") -> None:
        import binascii  # few workers take files

        self.filename = filename
        self.content_type = content_type
        # binascii.Error is a ValueError: the caller's payload is wrong.
        self.content = binascii.a2b_base64(content_base64, strict_mode=True)

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return len(self.content)

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of a file in a payload."""
        text = {"type": "string"}
        content = {**text, "contentEncoding": "base64"}
        properties = {"filename": text, "content_type": text, "size": {"type": "integer"}, "content_base64": content}
        return {"type": "object", "properties": properties, "required": ["content_base64"]}

    @classmethod
    def model_validate(cls, value: Any) -> File:
        """Return the file in a payload. ValueError for what is none."""
        if not isinstance(value, dict) or not isinstance(value.get("content_base64"), str):
            raise ValueError("a file is an object with content_base64")
        named = {key: value[key] for key in ("filename", "content_type") if isinstance(value.get(key), str)}
        return cls(value["content_base64"], **named)

    def __repr__(self) -> str:
        return f"<File {self.filename!r}, {self.size} bytes>"
