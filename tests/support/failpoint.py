"""The test's side of a named failpoint (see failpoints/sitecustomize.py): arm it, see that it was met."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.ground import ROOT, eventually

# For the environment of the whole engine: a worker's own PYTHONPATH would lose against the shell's.
PATH = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "failpoints"), str(ROOT)])}


class Failpoint:
    """One point, `"kill before PeerTable.promote 1"`, and its token in `folder`."""

    def __init__(self, folder: Path, point: str) -> None:
        self.point = point
        self._token = folder / "failpoint"

    @property
    def variables(self) -> dict[str, str]:
        """What the process that shall fail must find in its environment, besides PATH."""
        return {"FAILPOINT": self.point, "FAILPOINT_TOKEN": str(self._token)}

    def arm(self) -> None:
        """From now on the point counts."""
        self._token.touch()

    @property
    def was_met(self) -> bool:
        return not self._token.exists()

    def await_met(self) -> None:
        """Wait until the process has failed there."""
        eventually(lambda: self.was_met)
