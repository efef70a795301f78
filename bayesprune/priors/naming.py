"""Settings by name: a group's own name first, then the first glob pattern that fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from bayesprune.errors import PriorError
from bayesprune.structure.groups import Group
from bayesprune.structure.naming import check_names, check_order

T = TypeVar("T")
Table = tuple[str, Mapping[str, Any]]
"""What a table holds, for messages; and the table, by name or glob."""


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


def check_tables(prior: Any, groups: Sequence[Group], exclude: Sequence[str] = ()) -> None:
    """Refuse a prior whose tables name groups that there are not, or hide an entry behind another.

    A prior tells its tables by a method ``tables()``, if it has any.

    Args:
        prior: any prior, as it was given.
        groups: of the network.
        exclude: names and globs of groups that are left whole; a table may name them.

    Raises:
        PriorError: an unknown name, with the nearest known one; or a pattern that never holds.
    """
    names = [group.name for group in groups]
    for what, table in tables_of(prior):
        check_names(what, table, names, error=PriorError, besides=exclude)
        check_order(what, list(table), names, PriorError)


def tables_of(prior: Any) -> Iterator[Table]:
    """What a prior or hyper-prior says of its tables; nothing where it has none."""
    tables = getattr(prior, "tables", None)
    if callable(tables):
        yield from tables()
