"""Whether somebody watches stderr, or a file is to be read later."""

from __future__ import annotations

import sys


def is_terminal() -> bool:
    """Whether stderr is a terminal; it may be closed, or not be there at all."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError, OSError):
        return False


def bar_hidden(progress: bool) -> bool:
    """What tqdm's ``disable`` should be: in a file a bar is a line for every time that it moves.

    Args:
        progress: whether the user wants one.
    """
    return not (progress and is_terminal())
