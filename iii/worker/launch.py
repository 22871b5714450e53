"""Start a worker's script: `python .../iii/worker/launch.py SCRIPT [args]`, or `-m MODULE [args]`.

What it does is `launcher.py`, loaded as the module `iii_launcher`: the program that Python is started with is compiled
at every start, a module only once. Run by the supervisor.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib_external import SourceFileLoader  # loaded by every interpreter

# Not found by a search of the path: this folder may not be on it, and `iii` may be another one than ours.
_file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")
_launcher = type(sys)("iii_launcher")
_launcher.__file__ = _file
sys.modules["iii_launcher"] = _launcher
SourceFileLoader("iii_launcher", _file).exec_module(_launcher)
_launcher.main()
