"""The pytest plugin: the fixture `iii`, an engine in memory with all Python workers of the project, new for each test.

The package's entry point registers it, so every pytest run in the environment loads it: it imports nothing before a
test asks for the fixture. A fixture `iii` of the project's own wins over this one: pytest uses the one closest to the
test (module, class, conftest.py), and of two plugins' the one registered later, which a plugin named by a conftest.py
is. The project's fixture may ask for this one by an argument `iii`.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from iii.testing import Engine


@pytest.fixture
def iii(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine in memory with the workers of the iii.toml nearest to the test: `iii.call("math::add", a=2, b=3)`."""
    from iii.testing import project  # see the module docstring

    with project(request.path.parent) as engine:
        yield engine
