"""Watch globs and .gitignore rules."""

from __future__ import annotations

import pytest

from iii.engine.reload.globs import Ignored, compile_glob, fixed_part, is_noise


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("templates/**", "templates/a/b.html", True),
        ("templates/**", "templates2/a", False),
        ("templates/*.html", "templates/a.html", True),
        ("templates/*.html", "templates/a/b.html", False),
        ("**/*.sql", "a.sql", True),
        ("**/*.sql", "a/b/c.sql", True),
        ("data/?.json", "data/1.json", True),
        ("data/?.json", "data/12.json", False),
        ("data/[0-9].json", "data/1.json", True),
        ("data/[!0-9].json", "data/1.json", False),
        ("a.b", "axb", False),
    ],
)
def test_a_glob_matches_within_folders_and_across_them(glob: str, path: str, matches: bool) -> None:
    assert bool(compile_glob(glob).match(path)) is matches


def test_the_fixed_part_is_where_looking_begins() -> None:
    assert [fixed_part(glob) for glob in ("a/b/*.c", "**/x", "a/b.c", "x")] == ["a/b", "", "a", ""]


@pytest.mark.parametrize(
    "path", [".git/index", "a/__pycache__/x.pyc", "a/.math.py.swp", "math.py~", "a/4913", ".#math.py", "x.pyc"]
)
def test_droppings_of_editors_and_caches_are_noise(path: str) -> None:
    assert is_noise(path)


def test_code_and_data_are_no_noise() -> None:
    assert not any(map(is_noise, ["a/math.py", "templates/a.html", "data/49134"]))


def ignored(**files: str) -> Ignored:
    """The rules of these .gitignore files, keyed by their folder with `__` for `/`; `_` is the root."""
    rules = Ignored()
    for folder, text in files.items():
        rules.add("" if folder == "_" else folder.replace("__", "/"), text)
    return rules


@pytest.mark.parametrize(
    ("path", "is_ignored"),
    [
        ("a.log", True),
        ("x/y/a.log", True),
        ("x/keep.log", False),
        ("build/out.js", True),
        ("x/build/out.js", True),
        ("build/", True),
        ("dist/a", True),
        ("x/dist/a", False),
        ("builds/a", False),
    ],
)
def test_a_gitignore_means_what_git_means(path: str, is_ignored: bool) -> None:
    assert ignored(_="# comment\n\n*.log\n!keep.log\nbuild/\n/dist")(path) is is_ignored


def test_without_rules_nothing_is_ignored() -> None:
    assert not Ignored()("a.log")


@pytest.mark.parametrize(
    ("lines", "is_ignored"),
    [
        ("*.log\n!a.log", False),
        ("!a.log\n*.log", True),
        ("*.log\n!a.log\na.*", True),
        ("x/*\n!x/a.log", False),
        ("x/**\n!x/a.log", False),
        ("\\!a.log", False),  # a file that is called `!a.log`
    ],
)
def test_the_last_line_that_matches_decides(lines: str, is_ignored: bool) -> None:
    assert ignored(_=lines)("x/a.log") is is_ignored


@pytest.mark.parametrize(
    ("path", "is_ignored"),
    [
        ("a.log", True),
        ("web/a.log", False),  # taken back by web/.gitignore
        ("web/deep/a.log", True),  # and ignored once more below it
        ("web/out/x.js", True),  # anchored in web/
        ("web/src/out/x.js", False),
        ("out/x.js", False),  # the rules of web/ hold in web/ only
        ("build/keep", True),  # a .gitignore in an ignored folder counts for nothing
    ],
)
def test_a_nested_gitignore_overrides_those_above_it_in_its_own_folder(path: str, is_ignored: bool) -> None:
    rules = ignored(_="*.log\nbuild/", web="!*.log\n/out", web__deep="*.log", build="!keep")
    assert rules(path) is is_ignored


def test_a_line_that_git_cannot_read_costs_only_itself() -> None:
    rules = ignored(_="!\n\\\n[z-a]\n*.log")
    assert rules("a.log")
    assert not rules("z")
