"""Whether files still hold what a worker has loaded, decided when they are at rest."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

from iii.engine.config.regular_file import digest_of_file
from iii.engine.supervision.loaded_files import AT_REST, INLINE_SIZE, changed_since_loaded


def loaded(*files: Path) -> dict[str, str]:
    return {str(file): digest_of_file(file) or "" for file in files}


def test_a_file_that_holds_what_was_loaded_has_not_changed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a")
    digests = loaded(tmp_path / "a.py")
    os.utime(tmp_path / "a.py")
    assert asyncio.run(changed_since_loaded(digests)) == ()


def test_another_content_of_the_same_size_and_time_and_a_file_that_is_gone_have_changed(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.py", "b.py", "c.py")]
    for file in files:
        file.write_text("1")
        os.utime(file, (1e9, 1e9))
    digests = loaded(*files)
    files[0].write_text("2")
    os.utime(files[0], (1e9, 1e9))
    files[1].unlink()
    assert asyncio.run(changed_since_loaded(digests)) == (str(files[0]), str(files[1]))


def test_large_files_are_compared_as_well(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"#" * (INLINE_SIZE + 1))
    digests = loaded(tmp_path / "a.py")
    assert asyncio.run(changed_since_loaded(digests)) == ()
    (tmp_path / "a.py").write_bytes(b"#" * INLINE_SIZE + b"!")
    assert asyncio.run(changed_since_loaded(digests)) == (str(tmp_path / "a.py"),)


def test_nothing_is_decided_in_the_middle_of_a_save(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("old")
    saves: list[float] = []

    async def play() -> tuple[str, ...]:
        file.write_text("")  # loaded while it was empty
        digests = loaded(file)

        def save() -> None:
            for _ in range(5):
                time.sleep(AT_REST / 4)  # as far apart as two writes of one save may be
                file.write_text("new")
                saves.append(time.time())

        saving = threading.Thread(target=save)
        saving.start()
        try:
            return await changed_since_loaded(digests)
        finally:
            assert len(saves) == 5
            assert time.time() - saves[-1] >= AT_REST * 0.9
            saving.join()

    assert asyncio.run(play()) == (str(file),)
