"""Static folders: files below the root, nothing else, in whole or in parts."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest

from stdlib_workers.http.static import StaticFolder
from tests.support.asgi_client import Answer, Site

CANARY = b"canary outside of the root"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with files in it and a canary beside it."""
    root = tmp_path / "public"
    (root / "sub").mkdir(parents=True)
    (root / "index.html").write_bytes(b"<p>home")
    (root / "sub" / "index.html").write_bytes(b"<p>sub")
    (root / "a b.txt").write_bytes(b"0123456789")
    (root / "app.js.gz").write_bytes(b"packed")
    (root / ".env").write_bytes(CANARY)
    (root / "inside").symlink_to(root / "a b.txt")
    (tmp_path / "secret.txt").write_bytes(CANARY)
    (tmp_path / "public-too").mkdir()
    (tmp_path / "public-too" / "x").write_bytes(CANARY)
    (root / "link").symlink_to(tmp_path / "secret.txt")
    (root / "link.gz").symlink_to(tmp_path / "secret.txt")
    (root / "out").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    return root


def ask(folder: Path, path: str, headers: dict[str, str] | None = None, *, prefix: str = "/") -> Answer:
    made = Site()
    made.application.fallbacks = [StaticFolder(prefix, folder)]
    return made.ask(f"GET {path}", b"", [(name.encode(), value.encode()) for name, value in (headers or {}).items()])


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/", "text/html; charset=utf-8", b"<p>home"),
        ("/index.html", "text/html; charset=utf-8", b"<p>home"),
        ("/sub/", "text/html; charset=utf-8", b"<p>sub"),
        ("/a%20b.txt", "text/plain; charset=utf-8", b"0123456789"),
        ("/app.js.gz", "application/octet-stream", b"packed"),
        ("/inside", "text/plain; charset=utf-8", b"0123456789"),
    ],
)
def test_a_file_is_served_with_its_kind(folder: Path, path: str, kind: str, body: bytes) -> None:
    answer = ask(folder, path)
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, kind, body)
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_prefix_is_taken_off(folder: Path) -> None:
    assert ask(folder, "/assets/a%20b.txt", prefix="/assets").body == b"0123456789"
    assert ask(folder, "/assets/", prefix="/assets").body == b"<p>home"
    assert ask(folder, "/a%20b.txt", prefix="/assets").status == 404


def traversals() -> list[str]:
    """Ways to say `up` and `elsewhere`: encoded once and twice, overlong, with the other slash, absolute, by link."""
    ups = ["..", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "%c0%ae%c0%ae", "%e0%80%ae.", "...", "..;", "..%00", ".%00."]
    ups += ["%uff0e%uff0e", "..%20", "%20..", "..\\", "..%5c", "%5c..", "..%09", "..%0d", "..%ef%bc%8f"]
    slashes = ["/", "//", "%2f", "%252f", "%5c", "%c0%af", "/./"]
    targets = ["secret.txt", "public-too/x"]
    made = [f"/{up}{slash}{target}" for up in ups for slash in slashes for target in targets]
    made += [f"/sub/{up}{slash}{up}{slash}secret.txt" for up in ups for slash in slashes[:3]]
    return [
        *made,
        "/link",
        "/link.gz",
        "/out/secret.txt",
        "/.env",
        "/%2eenv",
        "/pipe",
        "/sub",
    ]


def test_s20_no_path_leads_out_of_the_root(folder: Path) -> None:
    paths = [*traversals(), *(quote(str(folder.parent / "secret.txt"), safe=safe) for safe in ("/", "", "%"))]
    assert len(paths) >= 300
    for path in paths:
        answer = ask(folder, path if path.startswith("/") else f"/{path}")
        assert answer.status in (400, 404), path
        assert CANARY not in answer.body


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-30", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=-0", 416, b"", "bytes */10"),
        ("bytes=5-4", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("bytes=" + "9" * 5000 + "-", 200, b"0123456789", None),
        ("lines=0-1", 200, b"0123456789", None),
    ],
)
def test_a_range_is_a_part(folder: Path, asked: str, status: int, body: bytes, content_range: str | None) -> None:
    answer = ask(folder, "/a%20b.txt", {"range": asked})
    assert (answer.status, answer.body, answer.headers.get("content-range")) == (status, body, content_range)


def test_what_the_client_has_already_is_not_sent_again(folder: Path) -> None:
    first = ask(folder, "/a%20b.txt")
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    for headers in ({"if-none-match": f'"x", W/{etag}'}, {"if-none-match": "*"}, {"if-modified-since": modified}):
        known = ask(folder, "/a%20b.txt", headers)
        assert (known.status, known.body, known.headers["etag"]) == (304, b"", etag)
    assert ask(folder, "/a%20b.txt", {"if-none-match": '"x"', "if-modified-since": modified}).status == 200
    assert ask(folder, "/a%20b.txt", {"if-range": '"x"', "range": "bytes=0-1"}).status == 200
    os.utime(folder / "a b.txt", (1, 1))
    assert ask(folder, "/a%20b.txt", {"if-none-match": etag}).status == 200
