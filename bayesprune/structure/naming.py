"""Names in settings: a name or pattern that means nothing is refused, with the nearest one that does."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from bayesprune.errors import BayespruneError, SettingsError

ALL = "*"
"""The pattern of what is not named; it may hold for nothing."""


def check_names(
    what: str,
    patterns: Iterable[str],
    names: Sequence[str],
    *,
    error: type[BayespruneError] = SettingsError,
    kind: str = "group",
    besides: Iterable[str] = (),
) -> None:
    """Refuse names and glob patterns that hold for nothing: what was meant by them would not happen.

    Args:
        what: the setting, for the message, such as ``"exclude"``.
        patterns: names or globs as the user gave them. ``"*"`` is always fine: it means what is not named.
        names: what there is.
        error: the exception's class.
        kind: what the names are of, for the message.
        besides: names and patterns that are known as well, though not among ``names``: groups that are left
            whole on purpose may have a price.

    Raises:
        BayespruneError: of that class, with every unknown name, the nearest known one, and all there are.

    Example:
        >>> check_names("exclude", ["conv*"], ["conv1", "conv2", "fc1"])
        >>> check_names("exclude", ["conv*", "fc2"], ["conv1", "conv2", "fc1"])
        Traceback (most recent call last):
        ...
        bayesprune.errors.SettingsError: exclude names 'fc2', and no group is called so. Did you mean 'fc1'?
        There are 'conv1', 'conv2', 'fc1'.
    """
    besides = tuple(besides)
    unknown = [
        pattern
        for pattern in patterns
        if pattern != ALL
        and not any(fnmatchcase(name, pattern) for name in (*names, *besides))
        and not any(fnmatchcase(pattern, other) for other in besides)
    ]
    if unknown:
        listed = ", ".join(map(repr, unknown))
        there = f"There are {', '.join(map(repr, names)) or 'none'}."
        raise error(f"{what} names {listed}, and no {kind} is called so.{_hint(unknown, names)} {there}")


def as_names(names: str | Iterable[str]) -> tuple[str, ...]:
    """Names as a tuple; one by itself is one name, not its letters.

    Args:
        names: several, or one.
    """
    return (names,) if isinstance(names, str) else tuple(names)


def check_groups(what: str, given: Iterable[str], names: Iterable[str]) -> None:
    """Refuse names of groups, not patterns, that there are not.

    Args:
        what: the call, for the message.
        given: the names.
        names: what there is.

    Raises:
        SettingsError: an unknown one; all are listed.
    """
    names = list(names)
    unknown = [no_group(name, names) for name in given if name not in names]
    if unknown:
        raise SettingsError(f"{what}: {'; '.join(unknown)}.")


def check_order(
    what: str, patterns: Sequence[str], names: Sequence[str], error: type[BayespruneError]
) -> None:
    """Refuse a pattern that never holds, since one before it takes all its names: ``{"*": 8, "conv*": 60}``.

    ``"*"`` at the end may be left with nothing.

    Args:
        what: the setting, for the message.
        patterns: in their order; an exact name holds before all patterns.
        names: what there is.
        error: the exception's class.
    """
    left = [name for name in names if name not in patterns]
    for place, pattern in enumerate(patterns):
        mine = [name for name in left if fnmatchcase(name, pattern)]
        earlier = [p for p in patterns[:place] if p not in names]
        taken = [p for name in mine for p in earlier if fnmatchcase(name, p)]
        if pattern != ALL and mine and all(any(fnmatchcase(name, p) for p in earlier) for name in mine):
            raise error(
                f"{what}: {pattern!r} comes after {taken[0]!r}, which takes all that it stands for. Patterns "
                f"are tried in order: put {pattern!r} first."
            )


def no_group(name: object, names: Iterable[str]) -> str:
    """A part of a sentence: that a name is no group's, the nearest one, and which there are.

    Args:
        name: what was given.
        names: what there is.

    Example:
        >>> no_group("fc7", ["fc1", "conv1"])
        "'fc7' is no group (did you mean 'fc1'? there are 'fc1', 'conv1')"
    """
    names = list(names)
    hint = _hint([str(name)], names).strip().replace("Did", "did")
    there = f"there are {', '.join(map(repr, names))}"
    return f"{name!r} is no group ({hint}{' ' * bool(hint)}{there})"


def _hint(unknown: Sequence[str], names: Sequence[str]) -> str:
    """The nearest known name of the first unknown one that has any."""
    for pattern in unknown:
        near = difflib.get_close_matches(pattern.strip("*?"), names, n=1, cutoff=0.5)
        if near:
            return f" Did you mean {near[0]!r}?"
    return ""
