"""The test's side of a named failpoint (see failpoints/sitecustomize.py): arm it, see that it was met."""

from __future__ import annotations

import os
from pathlib import Path

from ground import ROOT, eventually

FOLDER = Path(__file__).parent / "failpoints"


class Failpoint:
    """One point, `"kill before Roster.promote 1"`, and its token in `folder`."""

    def __init__(self, folder: Path, point: str) -> None:
        self.point = point
        self._token = folder / "failpoint"

    @property
    def environment(self) -> dict[str, str]:
        """What the process that shall fail must find in its environment."""
        path = os.pathsep.join([str(FOLDER), str(ROOT)])
        return {"PYTHONPATH": path, "FAILPOINT": self.point, "FAILPOINT_TOKEN": str(self._token)}

    def arm(self) -> None:
        """From now on the point counts."""
        self._token.touch()

    @property
    def was_met(self) -> bool:
        return not self._token.exists()

    def await_met(self) -> None:
        """Wait until the process has failed there."""
        eventually(lambda: self.was_met)
