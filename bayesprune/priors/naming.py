"""Settings by name: a group's own name first, then the first glob pattern that fits."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from bayesprune.errors import PriorError

T = TypeVar("T")


def by_name(table: Mapping[str, T], name: str, what: str) -> T:
    """Find the entry that holds for a name.

    Args:
        table: entries by exact name or by glob pattern (``'fc*'``); patterns are tried in order.
        name: name of a group or parameter.
        what: what is looked up, for the message, such as ``'price'``.

    Returns:
        The entry under the exact name if there is one, else under the first pattern that matches.

    Raises:
        PriorError: nothing fits.

    Example:
        >>> from bayesprune.priors.naming import by_name
        >>> by_name({"conv*": 60.0, "conv2": 40.0, "*": 8.0}, "conv2", "price")
        40.0
    """
    if name in table:
        return table[name]
    for pattern, entry in table.items():
        if fnmatchcase(name, pattern):
            return entry
    known = ", ".join(repr(pattern) for pattern in table) or "nothing"
    raise PriorError(f"No {what} for '{name}': the table has {known}. Add '{name}', or a catch-all '*'.")
