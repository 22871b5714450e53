"""The console script `iii`: this process runs our modules, whatever else is installed under their names."""

from __future__ import annotations

import os
import sys

from iii_engine import ROOT


def main() -> int:
    """Run the command line of this process and return its exit code."""
    sys.path.insert(0, ROOT)
    from cli.main import TRIGGER_NAMES
    from cli.main import main as run

    code = run()
    # A trigger has closed its connection and flushed what it printed: taking the interpreter down would cost it a tenth
    # more. What watches this process, such as a debugger or a measurement of coverage, has things to do at the end.
    if sys.argv[1:2] and sys.argv[1] in TRIGGER_NAMES and sys.gettrace() is None and sys.getprofile() is None:
        sys.stderr.flush()
        os._exit(code)
    return code
