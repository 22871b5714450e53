"""`python -m iii_engine` is the `iii` command, for environments whose scripts are not on the PATH."""

import sys

from iii_engine.command import main

sys.exit(main())
