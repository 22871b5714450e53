"""The pytest plugin: `iii`, an engine in memory with all Python workers of the project, fresh for each test.

Registered by the package's entry point; every pytest run loads it, so it imports nothing until a test asks for it.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from iii.testing import Engine


@pytest.fixture
def iii(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Call the project's functions: `iii.call("math::add", a=2, b=3)`."""
    from iii.testing import project  # see the module docstring

    with project(request.path.parent) as engine:
        yield engine
