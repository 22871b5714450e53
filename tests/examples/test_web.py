"""The web example end to end: a form, an upload and live events, asked directly and by a real browser."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support.asgi_client import Answer
from tests.support.browser import open_page
from tests.support.live_project import BOUND, ROOT, Project
from tests.support.web_project import Web

EXAMPLE = ROOT / "examples" / "web"
# One pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
FORM = {"content-type": "application/x-www-form-urlencoded"}


@contextmanager
def served(folder: Path) -> Iterator[Web]:
    """Run a copy of the example on a port of its own."""
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".iii", "uploads"))
    toml = (EXAMPLE / "iii.toml").read_text().replace("[workers.http.config]", "[workers.http.config]\nport = 0")
    made = Project(folder, '[engine]\nlisten = "127.0.0.1:0"\n' + toml, {})
    made.start()
    try:
        wall = Web(made)
        wall.wait_for("/notes", "/pictures", "/events")
        yield wall
    finally:
        made.stop()


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with served(tmp_path_factory.mktemp("wall")) as running:
        yield running


@contextmanager
def listening(wall: Web) -> Iterator[Iterator[dict[str, str]]]:
    """The notes of an open page, as they come."""
    connection = http.client.HTTPConnection("127.0.0.1", wall.port, timeout=BOUND)
    connection.request("GET", "/events")
    response = connection.getresponse()
    assert response.getheader("content-type") == "text/event-stream", response.read()
    try:
        yield (json.loads(line[6:]) for line in response if line.startswith(b"data: "))
    finally:
        response.close()
        connection.close()


def upload(wall: Web, content: bytes) -> Answer:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n' + content + b"\r\n--x--\r\n"
    )
    return wall.ask("POST", "/pictures", body, {"content-type": "multipart/form-data; boundary=x"})


def test_a_note_reaches_a_page_that_is_open_and_one_that_opens_later(wall: Web) -> None:
    with listening(wall) as notes:
        answer = wall.ask("POST", "/notes", urlencode({"text": "héllo"}).encode(), FORM)
        assert (answer.status, answer.headers["location"]) == (303, "/")
        seen = next(notes)
        assert seen["text"] == "héllo"
    with listening(wall) as notes:
        assert next(notes) == seen


def test_a_picture_is_stored_served_and_told(wall: Web) -> None:
    assert upload(wall, PNG).status == 303
    with listening(wall) as notes:
        picture = next(note["picture"] for note in notes if "picture" in note)
    served_back = wall.ask("GET", picture)
    assert (served_back.headers["content-type"], served_back.body) == ("image/png", PNG)


def test_what_is_no_note_and_no_picture_is_refused(wall: Web) -> None:
    assert upload(wall, b"<script>").status == 415
    assert wall.ask("POST", "/notes", b"text=", FORM).status == 400
    assert wall.ask("POST", "/pictures", b"picture=x", FORM).status == 400


NOTES = "[...document.querySelectorAll('#notes li')].map(line => line.textContent).join(' | ')"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_browser_posts_a_form_uploads_a_file_and_sees_it_live(tmp_path: Path) -> None:
    picture = tmp_path / "one.png"
    picture.write_bytes(PNG)
    project = tmp_path / "project"
    project.mkdir()
    with served(project) as wall:
        url = f"http://127.0.0.1:{wall.port}/"
        with open_page(url, tmp_path / "first") as page, open_page(url, tmp_path / "second") as other:
            other.wait("document.readyState", "complete")
            page.wait("document.querySelectorAll('#note').length", 1)
            page.value("document.querySelector('#note input').value = '<b>hi</b>'")
            page.value("document.querySelector('#note button').click()")
            for each in (page, other):
                each.wait(NOTES, "<b>hi</b>")
            page.choose_file("#picture input", picture)
            page.value("document.querySelector('#picture button').click()")
            for each in (page, other):
                each.wait(NOTES, "one.png | <b>hi</b>")
                each.wait("document.querySelector('#notes img').naturalWidth", 1)
            # New code under an open page: the page connects again by itself, and misses nothing.
            wall.project.call("engine::workers::restart", {"name": "wall"})
            wall.project.wait("~ ready again")
            wall.ask("POST", "/notes", b"text=later", FORM)
            other.wait(NOTES, "later | one.png | <b>hi</b>")
