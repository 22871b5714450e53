"""The options: forms of the public worker, and combinations that mean nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stdlib_workers.configuration.files import Folder
from stdlib_workers.configuration.options import Options, options_from
from stdlib_workers.values import OptionError

URL = "ws://10.0.0.5:49134"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Options()),
        ({"directory": "conf", "ttl_seconds": 5}, Options(directory="conf", ttl_seconds=5)),
        ({"adapter": {"name": "fs"}}, Options(directory="./config")),
        ({"adapter": {"name": "fs", "config": {"directory": "c"}}}, Options(directory="c")),
        ({"adapter": {"name": "in_memory"}}, Options(in_memory=True)),
        ({"adapter": {"name": "bridge", "config": {"url": URL, "token": "t"}}}, Options(url=URL, token="t")),
    ],
)
def test_each_form_is_read(config: Any, expected: Options) -> None:
    assert options_from(config) == expected


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"ttl_seconds": -1}, "ttl_seconds"),
        ({"ttl_secs": 1}, "did you mean `ttl_seconds`"),
        ({"adapter": {"name": "redis"}}, "bridge"),
        ({"adapter": {"name": "bridge"}}, "needs adapter.config.url"),
        ({"adapter": {"name": "bridge", "config": {"url": "http://x"}}}, "url"),
        ({"adapter": {"name": "bridge", "config": {"url": URL, "directory": "c"}}}, "means nothing"),
        ({"adapter": {"name": "fs", "config": {"url": URL}}}, "means nothing"),
        ({"adapter": {"name": "bridge", "config": {"url": URL}}, "ttl_seconds": 5}, "belongs to the engine"),
        ({"adapter": {"name": "bridge", "config": {"url": "ws://localhost:1"}}}, "this engine itself"),
    ],
)
def test_what_means_nothing_is_refused(config: Any, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        options_from(config, ("ws://localhost:1",))
    assert words in str(caught.value)


def test_the_public_workers_former_folder_moves_once(tmp_path: Path) -> None:
    former, folder = tmp_path / "data" / "configuration", tmp_path / "config"
    former.mkdir(parents=True)
    (former / "app.yaml").write_text("value: 1\n")
    Folder(folder, former)
    assert (folder / "app.yaml").read_text() == "value: 1\n"
    former.mkdir()
    (former / "app.yaml").write_text("value: 2\n")
    Folder(folder, former)
    assert (folder / "app.yaml").read_text() == "value: 1\n"
