"""The pytest plugin: the fixture `iii`, an engine in memory with the workers of the project, new for each test.

Every pytest run in the environment loads this module, so it imports nothing until a test asks for `iii`. In a pytest
run, `import iii` is this project's SDK, also where the official `iii-sdk` is installed beside it: an engine in memory
can only run workers on ours, and a test and its workers must see the same classes. `pytest -p no:iii` leaves it out.

A fixture `iii` of the project's own wins over this one: pytest uses the one closest to the test (module, class,
conftest.py), and of two plugins' the one registered later, which a plugin named by a conftest.py is. The project's
fixture may ask for this one by an argument `iii`.
"""

from __future__ import annotations

import os
import sys

import pytest

from iii_engine import ROOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from importlib.machinery import ModuleSpec

    from pluggy import Result

    from iii.testing import Engine


_ENGINE: pytest.StashKey[Engine] = pytest.StashKey()


class _OwnSdk:
    """Finds the package `iii` in our root; all other names are left to the other finders."""

    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        """Return the spec of our `iii`, None for any other module (the protocol of `sys.meta_path`)."""
        if name != "iii":
            return None
        from importlib.util import spec_from_file_location

        folder = os.path.join(ROOT, "iii")
        return spec_from_file_location(name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])


sys.meta_path.insert(0, _OwnSdk)


@pytest.fixture
def iii(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine in memory with the workers of the iii.toml nearest to the test: `iii.call("math::add", a=2, b=3)`.

    Standard workers run in memory too: `iii.http.post("/orders", json={...})`, `iii.advance("1d")` (docs/testing.md).
    """
    from iii.testing import project

    with project(request.path.parent) as engine:
        request.node.stash[_ENGINE] = engine
        yield engine


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Result[pytest.TestReport], None]:
    """Show below a failed test what its engine has done: the calls as trees, and failures that no caller waited for."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed and _ENGINE in item.stash:
        text = item.stash[_ENGINE].report()
        if text:
            report.sections.append(("iii: calls of this test", text))
