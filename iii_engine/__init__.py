"""What `pip install iii-engine` puts beside other packages: this one, and nothing else at the top level.

The three folders of the project (`iii`, `cli`, `stdlib_workers`) are installed below a private root, so that no other
package can replace one of them and they replace nobody's. `iii_engine.pth` adds that root to the *end* of the path:
`from iii import ...` works in a worker's environment, and the official `iii-sdk` wins where it is installed. What must
have our own modules in any case comes in through `command` or `pytest_plugin`, which look in the root first.
"""

from __future__ import annotations

import os

_HERE = os.path.dirname(os.path.abspath(__file__))
_INSTALLED = os.path.join(_HERE, "_root")
# A checkout, and what `pip install -e` makes of it, has the three folders beside this one.
ROOT = _INSTALLED if os.path.isdir(_INSTALLED) else os.path.dirname(_HERE)
