"""``python -m bayesprune`` is the command ``bayesprune``."""

import sys

from bayesprune.cli import main

sys.exit(main())
