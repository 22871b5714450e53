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


@pytest.mark.parametrize(
    ("path", "is_ignored"),
    [
        ("a.log", True),
        ("x/y/a.log", True),
        ("x/keep.log", False),
        ("build/out.js", True),
        ("x/build/out.js", True),
        ("dist/a", True),
        ("x/dist/a", False),
        ("builds/a", False),
    ],
)
def test_a_gitignore_means_what_git_means(path: str, is_ignored: bool) -> None:
    assert Ignored(["# comment", "", "*.log", "!keep.log", "build/", "/dist"])(path) is is_ignored


def test_without_rules_nothing_is_ignored() -> None:
    assert not Ignored()("a.log")
