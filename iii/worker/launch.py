"""Start a worker's script: `python .../iii/worker/launch.py SCRIPT [args]`, or `-m MODULE [args]`.

Loads `launcher.py` as the module `iii_launcher` and runs it. Python compiles the program it is started with at every
start, but a module only once: so the code is in the module.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib_external import SourceFileLoader  # loaded by every interpreter

# Loaded by its file name: this folder may not be on the path, and an `iii` on the path may be another one than ours.
_file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")
_launcher = type(sys)("iii_launcher")
_launcher.__file__ = _file
sys.modules["iii_launcher"] = _launcher
SourceFileLoader("iii_launcher", _file).exec_module(_launcher)
_launcher.main()
