"""What has to be in a run's result before anything of it is shown; what is wrong is named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bayesprune.errors import RunFolderError
from bayesprune.run_shapes import OF_A_RUN, REMEDY, check_seeds
from bayesprune.schema import check


def check_result(result: dict[str, Any], path: Path) -> None:
    """Make sure that a result has everything that a report shows.

    Args:
        result: content of ``result.json``; ``seeds`` has the figures of each seed.
        path: of the file, for the message.

    Raises:
        RunFolderError: something is missing, or of another kind; the first five are named.
    """
    check(result, OF_A_RUN, path, RunFolderError, f"It is no result of 'bayesprune run'. {REMEDY}")
    check_seeds(result["seeds"], path)
