"""Whose line a warning is shown at: the user's, however deep in the library it was found."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = str(Path(__file__).parent)


def level() -> int:
    """``stacklevel`` of the first frame outside of this library, for a ``warnings.warn`` in the caller."""
    depth = 1
    while True:
        try:
            file = sys._getframe(depth).f_code.co_filename
        except ValueError:  # the library itself was run
            return depth - 1
        if not file.startswith(_HERE):
            return depth
        depth += 1
