"""A network whose sizes have changed gets the config that makes such networks, or says why there is none."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.pretrained.config import Shapes, changed, is_config, made, outermost, shapes
from bayesprune.structure.pretrained.reasons import Owners, no_such_layers, no_such_values, not_its_own
from bayesprune.structure.pretrained.search import Search, Sizes, Try

PLAIN = (bool, int, float, str, type(None), tuple, list)
"""What modules note of a config; what a user has set since stays."""

CHECKS = 12
"""How many configs of the right shapes are run, at the most."""


class CannotSave:
    """Stands in for ``save_pretrained`` of a network that no config of its class makes.

    A config with the old sizes would be written without a word, and loaded into a network of the wrong
    shapes, or with numbers left as they were drawn. The instance gets this attribute, so that whoever saves
    it, a trainer or ``push_to_hub``, comes here; its class, and what ``type()`` says, stay what they are. It
    holds a string alone: copies and pickles of the network have it too, and need bayesprune to be loaded.

    Args:
        reason: which field, which layers, and what to do.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __call__(self, *args: Any, **settings: Any) -> None:
        """Complain.

        Raises:
            UnsupportedNetworkError: with the reason.
        """
        raise UnsupportedNetworkError(self.reason)


def configure_(
    network: nn.Module,
    units: frozenset[tuple[int, int]],
    gone: set[str],
    same: Callable[[], bool],
    owners: Owners,
) -> bool:
    """Let a network's config say its new sizes, and all that its class notes of a config agree with it.

    For every part with a config, values of fields are sought with which its class builds a network of the
    same names and shapes. They are put into copies of the configs; what the class notes in its modules
    (heads, widths, numbers of layers, scales) is put in as the class makes it; layers that are gone from a
    list leave it. Then the network is run. If it does what it should, that is how it stays; else everything
    is as it was, and ``save_pretrained`` says why.

    Args:
        network: changed in place; its tensors have their new sizes.
        units: (size, units left), of groups that have lost some.
        gone: names of tensors that the network does without.
        same: whether the network does what it should, in training and in evaluation.
        owners: (tensor, dimension) → a group that has lost units there, and its size.

    Returns:
        Whether every part has a config that says what it is; False where it has none.
    """
    parts, done = outermost(network), True
    for name, part in parts.items():
        prefix = f"{name}." if name else ""
        inside = {tensor.removeprefix(prefix) for tensor in gone if tensor.startswith(prefix)}
        mine = {(t.removeprefix(prefix), dim): g for (t, dim), g in owners.items() if t.startswith(prefix)}
        reason = _Part(part, units, inside, same, mine).configure_()
        vars(part).pop("save_pretrained", None)
        if reason is not None:
            refuse_(part, reason)
        done &= reason is None
    return bool(parts) and done


def configure_loaded_(network: nn.Module, dense: Shapes, same: Callable[[], bool]) -> bool:
    """The same for a network that tensors of other sizes were put into.

    Args:
        network: changed in place.
        dense: its shapes before.
        same: whether it does what it should.
    """
    owners, units = dict[tuple[str, int], tuple[str, int]](), set[tuple[int, int]]()
    for name, shape in shapes(network).items():
        for dim, (now, before) in enumerate(zip(shape, dense[name], strict=True)):
            if now < before:
                owners[name, dim] = name, before
                units.add((before // math.gcd(now, before), now // math.gcd(now, before)))
    return configure_(network, frozenset(units), set(), same, owners) if units else False


def refuse_parts_(network: nn.Module, gone: set[str]) -> None:
    """Let ``save_pretrained`` of every part with a config raise: modules stand in for what is gone of it.

    Args:
        network: whose instances get the attribute.
        gone: names of tensors that it does without.
    """
    for name, part in outermost(network).items():
        inside = {tensor.removeprefix(f"{name}.") if name else tensor for tensor in gone}
        refuse_(part, no_such_layers(part, inside))


def refuse_(part: nn.Module, reason: str) -> None:
    """Let ``save_pretrained`` of an instance raise."""
    vars(part)["save_pretrained"] = CannotSave(reason)


class _Part:
    """One module with a config, while its sizes and its config do not agree."""

    def __init__(
        self,
        module: nn.Module,
        units: frozenset[tuple[int, int]],
        gone: set[str],
        same: Callable[[], bool],
        owners: Owners,
    ) -> None:
        self.module, self.units, self.gone, self.same, self.owners = module, units, gone, same, owners
        self.config: Any = module.config
        self._undo: list[tuple[dict[str, Any], str, Any]] = []

    def configure_(self) -> str | None:
        """Why no config says the sizes; None where one does."""
        kept = _layers_left(self.module, self.gone)
        if kept is None:
            return no_such_layers(self.module, self.gone)
        try:
            dense = made(type(self.module), changed(self.config, {}))
        except Exception as problem:  # a class that takes more than its config
            return not_its_own(self.module, f"{type(problem).__name__}: {problem}".partition("\n")[0])
        before, now = (
            {n: s for n, s in shapes(of).items() if n not in self.gone} for of in (dense, self.module)
        )
        if difference := _difference(before, now, self.owners):
            return not_its_own(self.module, difference)
        for name, numbers in kept.items():
            self._drop_(self.module.get_submodule(name), numbers)
        layers = tuple((len(dense.get_submodule(name)), numbers) for name, numbers in kept.items())  # type: ignore[arg-type]
        sizes = Sizes(self.units, layers)
        search = Search(type(self.module), self.config, shapes(self.module), sizes)
        mark = len(self._undo)
        problem_of_values = ""
        for number, found in enumerate(search.found()):
            if number == CHECKS:
                break
            problem_of_values = self._take_(found, dense, kept)
            if not problem_of_values:
                return None
            self._back_(mark)
        self._back_(0)
        return no_such_values(self.module, search, self.owners, problem_of_values)

    def _take_(self, found: Try, dense: nn.Module, kept: Mapping[str, Sequence[int]]) -> str:
        """Put a config in; what is wrong with it then, if anything."""
        twin, memo = made(type(self.module), changed(self.config, found.changes)), dict[int, Any]()
        for mine, new, old in _beside(self.module, twin, dense, kept):
            for attribute, value in _notes(new).items():
                before: Any = vars(old).get(attribute)
                if is_config(value) and is_config(before) and is_config(mine.get(attribute)):
                    if value.to_dict() != before.to_dict():
                        self._put_(mine, attribute, _follow(mine[attribute], before, value, memo))
                elif (
                    value != before
                    and type(mine.get(attribute)) is type(before)
                    and mine[attribute] == before
                ):
                    self._put_(mine, attribute, copy.deepcopy(value))
        loaded = made(type(self.module), changed(self.module.config, {}))
        if shapes(loaded) != shapes(self.module):
            return "it is not loaded as it is saved"
        return "" if self.same() else "then it computes something else"

    def _drop_(self, layers: nn.Module, numbers: Sequence[int]) -> None:
        left = list(layers._modules.values())
        self._put_(vars(layers), "_modules", {str(new): left[old] for new, old in enumerate(numbers)})

    def _put_(self, values: dict[str, Any], name: str, value: Any) -> None:
        self._undo.append((values, name, values[name]))
        values[name] = value

    def _back_(self, mark: int) -> None:
        while len(self._undo) > mark:
            values, name, value = self._undo.pop()
            values[name] = value


def _layers_left(module: nn.Module, gone: set[str]) -> dict[str, tuple[int, ...]] | None:
    """List of layers → numbers of those that are left, of lists that lost some; None where more is gone."""
    left, lost = dict[str, tuple[int, ...]](), set[str]()
    names = module.state_dict(keep_vars=True).keys()
    for path, layers in module.named_modules():
        if not isinstance(layers, nn.ModuleList) or any(n.startswith(f"{path}.") for n in lost):
            continue  # a list inside of a layer that is gone goes with it
        tensors = [{n for n in names if n.startswith(f"{path}.{number}.")} for number in range(len(layers))]
        out = [bool(of) and of <= gone for of in tensors]
        if any(out):
            left[path] = tuple(number for number, away in enumerate(out) if not away)
            lost |= set().union(*(of for of, away in zip(tensors, out, strict=True) if away))
    return left if gone <= lost and all(left.values()) else None


def _beside(
    module: nn.Module, twin: nn.Module, dense: nn.Module, kept: Mapping[str, Sequence[int]]
) -> Iterator[tuple[dict[str, Any], nn.Module, nn.Module]]:
    """The attributes of every module, and the modules of two others that stand where it does."""
    mine, before = dict(module.named_modules()), dict(dense.named_modules())
    for name, new in twin.named_modules():
        old = name
        for path, numbers in kept.items():
            if name.startswith(f"{path}."):
                number, dot, rest = name.removeprefix(f"{path}.").partition(".")
                old = f"{path}.{numbers[int(number)]}{dot}{rest}"
        if name in mine and old in before:
            yield mine[name].__dict__, new, before[old]


def _notes(module: nn.Module) -> dict[str, Any]:
    """The attributes in which a class notes what it was made with."""
    return {name: v for name, v in vars(module).items() if isinstance(v, PLAIN) or is_config(v)}


def _follow(mine: Any, old: Any, new: Any, memo: dict[int, Any]) -> Any:
    """A copy of a config, with the values in which two others differ."""
    config, before = copy.deepcopy(mine, memo), old.to_dict()
    for name, value in new.to_dict().items():
        a, b, c = (getattr(each, name, None) for each in (mine, old, new))
        if is_config(a) and is_config(b) and is_config(c):
            setattr(config, name, _follow(a, b, c, memo))
        elif value != before.get(name):
            setattr(config, name, copy.deepcopy(getattr(new, name)))
    return config


def _difference(dense: Shapes, mine: Shapes, owners: Owners) -> str:
    """What a network has that its config does not make, whatever was removed; nothing where all is there."""
    for name in sorted(dense.keys() ^ mine.keys()):
        return f"{name} is {'not ' * (name in dense)}there"
    for name, shape in mine.items():
        if len(shape) != len(dense[name]):
            return f"{name} is {shape}, and {dense[name]} there"
        for dim, (a, b) in enumerate(zip(shape, dense[name], strict=True)):
            if a != b and (name, dim) not in owners:
                return f"{name} is {shape}, and {dense[name]} there"
    return ""
