"""The console script `iii`: this process runs our modules, whatever else is installed under their names."""

from __future__ import annotations

import sys

from iii_engine import ROOT


def main() -> int:
    """Run the command line of this process and return its exit code."""
    sys.path.insert(0, ROOT)
    from cli.main import main as run

    return run()
