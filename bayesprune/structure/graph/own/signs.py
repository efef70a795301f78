"""What a run computes, as small signs of its values: how far does a network follow another one?

The other one is the reference, a graph of the same parameters. What both do in the same order is to *use* a
parameter: a product, a sum or a norm that reads one. Between two uses a graph after a cut may move numbers
about in operations of its own, so that there it is only known which values occur.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

Run = Callable[[nn.Module], list[Tensor]]
"""Runs a network on the example, in one mode: the tensors of what it returns."""

SAMPLE = 4096
"""Numbers of a tensor that its sign reads, besides their mean."""

CLOSE = 1e-3
"""By how much of their size two signs of equal values may differ, for sums in another order."""


@dataclass(frozen=True)
class Sign:
    """What is left of a value: its shape, and three numbers that other values hardly have.

    Attributes:
        shape: of the value.
        numbers: its mean, a sum of some of its numbers with signs, and their length.
    """

    shape: torch.Size
    numbers: tuple[float, float, float]

    @classmethod
    def of(cls, value: Tensor) -> Sign:
        """The sign of a value, of any type."""
        flat = torch.view_as_real(value) if value.is_complex() else value
        flat = flat.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // SAMPLE)].double().nan_to_num(1.0, 2.0, -2.0)
        total, turned = torch.mv(_weights(some.device)[:, : len(some)], some).tolist()
        square = float(some @ some)
        return cls(value.shape, (total / max(1, len(some)), turned, math.sqrt(square)))

    def alike(self, other: Sign) -> bool:
        """Whether both can be of one value."""
        if self.shape != other.shape:
            return False
        size = max(self.numbers[2], other.numbers[2], 1e-6)
        pairs = zip(self.numbers, other.numbers, strict=True)
        return all(abs(a - b) <= CLOSE * size for a, b in pairs)


@cache
def _weights(device: torch.device) -> Tensor:
    """(2, longest sample), ones and the signs: of a mean, and of a sum that knows the order."""
    at = torch.arange(1, 2 * SAMPLE, dtype=torch.double, device=device)
    return torch.stack([torch.ones_like(at), at.square().cos()])


class _Watch(TorchDispatchMode):
    """Sees every operation: one that uses parameters, or one that does not."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: dict[int, str] = {}
        for name, parameter in sorted(network.named_parameters(remove_duplicate=False)):
            if parameter.numel():  # of tied ones the first name
                self.names.setdefault(parameter.untyped_storage().data_ptr(), name)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it, and look at it."""
        result = func(*args, **(kwargs or {}))
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        values = [leaf for leaf in leaves if leaf.layout is torch.strided]  # others have no numbers in a row
        if values and not all(self._name(value) for value in values):  # no view of a parameter
            given = tree_leaves((args, kwargs or {}))
            names = frozenset(filter(None, (self._name(x) for x in given if isinstance(x, Tensor))))
            self.see(names, values[0])
        return result

    def _name(self, value: Tensor) -> str:
        """The parameter that a tensor is, or is a view of; empty for any other."""
        dense = value.layout is torch.strided and value.numel()
        return self.names.get(value.untyped_storage().data_ptr(), "") if dense else ""

    def see(self, names: frozenset[str], value: Tensor) -> None:
        """One operation: the parameters that it uses, and what comes out."""
        raise NotImplementedError


@dataclass(frozen=True)
class Reference:
    """What the network that is to be followed computes.

    Attributes:
        uses: parameters and sign, of every use in order.
        between: signs of the values in front of each use, and behind the last.
        outputs: of the network.
    """

    uses: list[tuple[frozenset[str], Sign]]
    between: list[list[Sign]]
    outputs: list[Tensor]

    @property
    def used(self) -> frozenset[str]:
        """The parameters that it uses."""
        return frozenset().union(*(names for names, _ in self.uses))


class _Writing(_Watch):
    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.uses: list[tuple[frozenset[str], Sign]] = []
        self.between: list[list[Sign]] = [[]]

    def see(self, names: frozenset[str], value: Tensor) -> None:
        sign = Sign.of(value)
        if names:
            self.uses.append((names, sign))
            self.between.append([])
        else:
            self.between[-1].append(sign)


def reference_of(graph: nn.Module, network: nn.Module, run: Run) -> Reference:
    """Run what is to be followed.

    Args:
        graph: is run.
        network: whose parameters it computes with, under the names that they have there.
        run: how.
    """
    with _Writing(network) as watch:
        outputs = run(graph)
    return Reference(watch.uses, watch.between, outputs)


@dataclass(frozen=True)
class Passed:
    """A module's one call, behind which a network has been followed further.

    Attributes:
        uses: so many uses of parameters had been seen when it returned.
        returned: what it returned.
        versions: of its tensors, which nobody has written into since.
    """

    uses: int
    returned: Any
    versions: list[int]

    @property
    def is_whole(self) -> bool:
        """Whether nobody has."""
        return _versions(self.returned) == self.versions


@dataclass
class Progress:
    """How far a network follows a reference.

    Attributes:
        uses: so many uses of parameters, from the first on, gave the same.
        values: so many values behind the last of them occur in the reference too.
        modules: that may have read a number wrong: those that were being run when the two went apart, the
            innermost first, and those that had been since the last use.
        problem: what the network raised, if it did.
        outputs: what it returned; None where it did not get there.
        passed: modules that need not be run again to come here: they were called once, draw nothing, and are
            inside of no other such module.
        early: modules that had been called when the last of those that were not run again returned.
    """

    uses: int = 0
    values: int = 0
    modules: list[nn.Module] = field(default_factory=list)
    problem: Exception | None = None
    outputs: list[Tensor] | None = None
    passed: dict[nn.Module, Passed] = field(default_factory=dict)
    early: set[nn.Module] = field(default_factory=set)

    @property
    def score(self) -> tuple[int, int]:
        """More of it is further."""
        return self.uses, self.values


class _Apart(BaseException):
    """The network does something else. Not an ``Exception``: no handler in a ``forward`` may swallow it."""


@dataclass(frozen=True)
class _Call:
    """A module that is being run: what had been drawn and passed before, and what it was given."""

    module: nn.Module
    draws: int
    passed: int
    given: Any
    versions: list[int]


class _Following(_Watch):
    def __init__(self, network: nn.Module, reference: Reference, known: int) -> None:
        super().__init__(network)
        self.reference, self.known, self.progress = reference, known, Progress()
        self.used = reference.used
        self.calls: list[_Call] = []
        self.since: dict[nn.Module, None] = {}
        self.called: dict[nn.Module, int] = {}
        self.draws = 0

    @property
    def inside(self) -> list[nn.Module]:
        """The modules that are being run, the innermost last."""
        return [call.module for call in self.calls]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it, and look at it."""
        self.draws += torch.Tag.nondeterministic_seeded in func.tags
        return super().__torch_dispatch__(func, types, args, kwargs)

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A module is being run."""
        given, passed = (args, kwargs), len(self.progress.passed)
        self.calls.append(_Call(module, self.draws, passed, given, _versions(given)))
        self.called[module] = self.called.get(module, 0) + 1
        self.since.pop(module, None)
        self.since[module] = None

    def leave(self, module: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        """And has been."""
        while module in self.inside:
            call = self.calls.pop()
            if call.module is module:
                self._pass(call, outputs)
                return

    def _pass(self, call: _Call, outputs: Any) -> None:
        """Keep what a module returned, instead of what those inside of it did."""
        module, own = call.module, vars(call.module).get("forward")
        plain = all(leaf is None or isinstance(leaf, KEPT) for leaf in tree_leaves(outputs))
        others = own is not None and getattr(own, "func", None) != self.again
        if not plain or others or isinstance(module, torch.jit.ScriptModule):
            return
        if self.draws == call.draws and _versions(call.given) == call.versions:
            for part in list(self.progress.passed)[call.passed :]:
                del self.progress.passed[part]
            self.progress.passed[module] = Passed(self.progress.uses, outputs, _versions(outputs))

    def again(self, passed: Passed, *args: Any, **kwargs: Any) -> Any:
        """What a module returned that is not run again."""
        self.progress.uses, self.progress.values = passed.uses, 0
        self.progress.early = set(self.called)
        return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, passed.returned)

    def see(self, names: frozenset[str], value: Tensor) -> None:
        progress = self.progress
        if names and not names & self.used:
            return  # its result is read by nobody
        if not names:
            if progress.uses >= self.known:
                sign, there = Sign.of(value), self.reference.between[progress.uses]
                progress.values += any(map(sign.alike, there))
            return
        expected = self.reference.uses[progress.uses : progress.uses + 1]
        if not expected or expected[0][0] != names or not expected[0][1].alike(Sign.of(value)):
            raise _Apart
        progress.uses, progress.values = progress.uses + 1, 0
        self.since = dict.fromkeys(self.inside)


KEPT = (Tensor, bool, int, float, str)
"""What a module may return that is not run again, in tuples, lists and dicts."""


def progress_of(
    network: nn.Module,
    reference: Reference,
    run: Run,
    known: int = 0,
    passed: Mapping[nn.Module, Passed] | None = None,
) -> Progress:
    """Run a network as far as it does what a reference does.

    Args:
        network: of the same parameters.
        reference: what it ought to compute.
        run: how.
        known: so many uses are known to agree; values in front of them are not looked at.
        passed: modules that are not run again, and return what they did; none by default.
    """
    watch, passed = _Following(network, reference, known), passed or {}
    left_out = {part for module in passed for part in module.modules()} - passed.keys()
    hooks = []
    for module in network.modules():
        if module not in left_out:
            hooks.append(module.register_forward_pre_hook(watch.enter, with_kwargs=True))
            hooks.append(module.register_forward_hook(watch.leave, with_kwargs=True))
    progress = watch.progress
    try:
        for module, call in passed.items():
            module.forward = partial(watch.again, call)
        with watch:
            progress.outputs = run(network)
    except _Apart:
        pass
    except Exception as problem:  # whatever a forward says to sizes that it was not written for
        progress.problem = problem
    finally:
        for module in passed:
            del module.forward
        for hook in hooks:
            hook.remove()
    progress.modules = list(dict.fromkeys([*watch.inside[::-1], *list(watch.since)[::-1]]))
    progress.passed = {
        module: passed.get(module, call)
        for module, call in progress.passed.items()
        if call.uses < progress.uses and watch.called[module] == 1 and call.is_whole
    }
    return progress


def _versions(values: Any) -> list[int]:
    """How often tensors were written into."""
    return [leaf._version for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


Shapes = Mapping[str, torch.Size]
"""Name of a tensor → its shape."""
