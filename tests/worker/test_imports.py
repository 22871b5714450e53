"""What a worker tells of its imports, and that it runs the source that is there, as a process under the launcher."""

from __future__ import annotations

import hashlib
import os
import sys

import pytest

from tests.support.worker_support import Process

HEAD = """
import sys
from iii import register_worker
worker = register_worker()
"""


@pytest.fixture
def launch(tmp_path):
    processes = []

    def start(body, *, folder=None, head=HEAD, script=None):
        path = script or (folder or tmp_path) / "script.py"
        if script is None:
            path.write_text(head + body)
        processes.append(Process(path, env={"PYTHONDONTWRITEBYTECODE": ""}))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


def digest(path):
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def test_found_files_are_told_with_what_was_loaded_from_them(launch, tmp_path):
    (tmp_path / "helper.py").write_text("VALUE = 5\n")
    ready = launch("import helper, email.message\n").engine.expect("ready")
    own = {str(tmp_path / name): digest(tmp_path / name) for name in ("helper.py", "script.py")}
    assert (ready["files"], ready["digests"]) == (sorted(own), own)
    assert "failed" not in ready


def test_a_failed_start_tells_what_it_has_looked_for(launch, tmp_path):
    (tmp_path / "broken.py").write_text("def f(:\n")
    process = launch("try:\n    import fresh.deep\nexcept ImportError:\n    pass\nimport broken\n")
    told = process.engine.expect("ready")
    assert told["failed"] is True
    assert str(tmp_path / "broken.py") in told["files"]
    names = ("fresh.py", "fresh/__init__.py", "fresh/")
    assert {f"{tmp_path}/{name}" for name in names} <= set(told["missing"])
    assert process.wait()[0] == 1


def test_a_syntax_error_in_a_module_shows_no_frame_of_ours(launch, tmp_path):
    (tmp_path / "broken.py").write_text("def f(:\n")
    process = launch("import broken\n")
    code, stderr = process.wait()
    assert code == 1
    assert [line for line in stderr.splitlines() if line.startswith("  File")] == [
        f'  File "{tmp_path}/script.py", line 5, in <module>',
        f'  File "{tmp_path}/broken.py", line 1',
    ]


def test_modules_of_an_earlier_folder_would_come_first(launch, tmp_path):
    for name in ("a", "b", "c", "c/helper"):
        (tmp_path / name).mkdir()
    (tmp_path / "b/helper.py").write_text("")
    body = (
        f"sys.path[:0] = [{str(tmp_path / 'a')!r}, {str(tmp_path / 'c')!r}, {str(tmp_path / 'b')!r}]\nimport helper\n"
    )
    ready = launch(body).engine.expect("ready")
    assert str(tmp_path / "b/helper.py") in ready["files"]
    assert {str(tmp_path / "a/helper.py"), f"{tmp_path}/a/helper/"} <= set(ready["missing"])
    assert not [path for path in ready["missing"] if path.startswith(str(tmp_path / "b"))]
    # A folder that is no package is there, and would not come first.
    assert {path for path in ready["missing"] if path.startswith(f"{tmp_path}/c/")} == {
        f"{tmp_path}/c/helper.py",
        f"{tmp_path}/c/helper/__init__.py",
    }


def test_files_are_told_as_the_import_found_them_through_links_and_outside_of_the_project(launch, tmp_path):
    (tmp_path / "project").mkdir()
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "helper.py").write_text(f"V = {name!r}\n")
    (tmp_path / "current").symlink_to("v1")
    body = f"sys.path.insert(0, {str(tmp_path / 'current')!r})\nimport helper\n"
    ready = launch(body, folder=tmp_path / "project").engine.expect("ready")
    assert str(tmp_path / "current/helper.py") in ready["files"]


def test_a_script_behind_a_link_finds_the_modules_beside_its_real_file_then_those_beside_the_link(launch, tmp_path):
    for name in ("real", "project"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "both.py").write_text(f"V = {name!r}\n")
        (tmp_path / name / f"{name}_only.py").write_text("")
    body = "import both, real_only, project_only\nworker.register_function('m::f', lambda p: both.V)\n"
    (tmp_path / "real/script.py").write_text(HEAD + body)
    (tmp_path / "project/script.py").symlink_to(tmp_path / "real/script.py")
    process = launch("", script=tmp_path / "project/script.py")
    process.engine.expect("ready")
    assert process.engine.call("m::f")["result"] == "real"


def test_bytecode_counts_only_for_the_source_it_was_made_from(launch, tmp_path):
    helper = tmp_path / "helper.py"
    body = "import helper\nworker.register_function('m::f', lambda p: helper.VALUE)\n"
    for value in (1, 2, 3):
        helper.write_text(f"VALUE = {value}\n")
        os.utime(helper, (1e9, 1e9))  # the same size and times, as far as Python looks
        process = launch(body)
        process.engine.expect("ready")
        assert process.engine.call("m::f")["result"] == value
        assert process.finish() == (0, "")
    assert list((tmp_path / "__pycache__").glob("helper.*.pyc"))


def test_bytecode_that_another_python_made_by_time_is_not_taken(launch, tmp_path):
    import py_compile

    helper = tmp_path / "helper.py"
    helper.write_text("VALUE = 1\n")
    os.utime(helper, (1e9, 1e9))
    py_compile.compile(str(helper))
    helper.write_text("VALUE = 2\n")
    os.utime(helper, (1e9, 1e9))
    process = launch("import helper\nworker.register_function('m::f', lambda p: helper.VALUE)\n")
    process.engine.expect("ready")
    assert process.engine.call("m::f")["result"] == 2


def test_bytecode_is_used_again_and_names_the_file_where_it_is_now(launch, tmp_path):
    body = "import helper\nworker.register_function('m::f', lambda p: helper.f.__code__.co_filename)\n"
    (tmp_path / "old").mkdir()
    (tmp_path / "old/helper.py").write_text("def f(): pass\n")
    written = set()
    for name in ("old", "new"):
        if name == "new":
            (tmp_path / "old").rename(tmp_path / "new")
        process = launch(body, folder=tmp_path / name)
        process.engine.expect("ready")
        assert process.engine.call("m::f")["result"] == str(tmp_path / name / "helper.py")
        assert process.finish() == (0, "")
        (cached,) = (tmp_path / name / "__pycache__").glob("helper.*.pyc")
        written.add(cached.stat().st_mtime_ns)
    assert len(written) == 1


def test_what_a_handler_looks_for_in_vain_is_told_after_the_call(launch, tmp_path):
    body = """
def f(p):
    try:
        import plugin
    except ImportError:
        return "none"
worker.register_function('m::f', f)
"""
    process = launch(body)
    assert "missing" not in process.engine.expect("ready")
    assert process.engine.call("m::f")["result"] == "none"
    assert str(tmp_path / "plugin.py") in process.engine.expect("ready")["missing"]


def test_python_itself_is_left_alone(launch):
    ready = launch("import json, email.message, iii.helpers\n").engine.expect("ready")
    assert len(ready["files"]) == 1
    assert not [path for path in ready.get("missing", []) if path.startswith(sys.base_prefix)]


def test_what_a_loader_of_its_own_kind_has_compiled_is_not_cached(launch, tmp_path):
    (tmp_path / "helper.py").write_text("VALUE = 1\n")
    hook = """
from importlib.machinery import PathFinder, SourceFileLoader
class Loader(SourceFileLoader):
    def source_to_code(self, data, path, **more):
        return super().source_to_code(data.replace(b"1", b"2"), path, **more)
class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        if name == "helper":
            spec.loader = Loader(name, spec.origin)
        return spec
sys.meta_path.insert(0, Finder)
"""
    body = "import helper\nworker.register_function('m::f', lambda p: helper.VALUE)\n"
    for text, value in ((hook + body, 2), (body, 1)):
        process = launch(text)
        assert "failed" not in process.engine.expect("ready")
        assert process.engine.call("m::f")["result"] == value
        assert process.finish() == (0, "")
