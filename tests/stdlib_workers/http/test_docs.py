"""The page about http agrees with the code: every key of both tables, and the limits."""

from __future__ import annotations

import json
import re
from pathlib import Path

from iii.protocol import shape
from stdlib_workers.http import application, listening, options, requests, triggers

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "http.md").read_text(encoding="utf-8")


SCHEMA = json.loads(Path(options.__file__).with_name("config.schema.json").read_text())


def rows_of(section: str) -> set[str]:
    """The names in the first column of a section's table."""
    [body] = re.findall(rf"## {section}\n(.*?)(?:\n## |\Z)", TEXT, re.DOTALL)
    return set(re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE))


def test_the_page_has_every_key_and_no_other() -> None:
    assert rows_of("Config") == SCHEMA["properties"].keys()
    trigger_config = triggers.DECLARED.trigger_types["http"]["trigger_request_format"]
    assert rows_of("Trigger config") == set(trigger_config["properties"])


def test_the_page_has_the_limits_of_the_code() -> None:
    assert f"target may have {listening.MAX_TARGET >> 10} KiB" in TEXT
    assert f"headers {listening.MAX_HEADERS >> 10} KiB and {application.MAX_HEADER_COUNT} fields" in TEXT
    assert f"within {listening.HEAD_SECONDS:g} seconds, a body {requests.BODY_SECONDS:g} seconds" in TEXT
    assert f"JSON {shape.MAX_DEPTH} levels" in TEXT
