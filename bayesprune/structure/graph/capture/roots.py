"""Lengths, and roots and powers of sizes, by Python's or NumPy's functions: symbols stay symbols.

Attention that is scaled by its length is ``x / math.sqrt(x.shape[1])``. A function of Python's asks a symbol
for its number, by which the size would be written down, where the same root by ``torch.sym_sqrt`` is traced;
and so does ``len(x)``, where ``x.shape[0]`` is the symbol.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx, nn

from bayesprune.structure.plain.operators import power

FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {math.sqrt: torch.sym_sqrt, math.pow: power}
"""Function of Python's → what does the same with symbols."""

SQUARE = 2


@contextmanager
def symbols_kept(network: nn.Module) -> Iterator[None]:
    """Inside, ``len``, and roots and powers under whatever name the classes of a network know, keep symbols.

    Args:
        network: that is traced meanwhile.
    """
    found = {sys.modules.get(type(module).__module__) for module in network.modules()} | {math}
    modules = [module for module in found if module is not None]
    with ExitStack() as stack:
        for module in modules:
            for name, value in list(vars(module).items()):
                if callable(value) and _hashable(value) and value in FUNCTIONS:
                    stack.callback(setattr, module, name, value)
                    setattr(module, name, _either(value))
            if "len" not in vars(module):
                stack.callback(delattr, module, "len")
                setattr(module, "len", _length)  # noqa: B010 (a module has no such attribute)
        for kind in (torch.SymInt, torch.SymFloat):
            if not hasattr(kind, "sqrt"):  # np.sqrt asks objects for a method of its name
                stack.callback(delattr, kind, "sqrt")
                kind.sqrt = torch.sym_sqrt  # type: ignore[union-attr]
        yield


def _length(value: Any) -> Any:
    return value.shape[0] if isinstance(value, torch.Tensor) and value.ndim else len(value)


def _hashable(value: Any) -> bool:
    return type(value).__hash__ is not None


def _either(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of numbers that takes symbols too."""

    def of_symbols(*numbers: Any) -> Any:
        symbols = any(isinstance(number, torch.SymInt | torch.SymFloat) for number in numbers)
        return (FUNCTIONS[function] if symbols else function)(*numbers)

    return of_symbols


def write_powers_(graph: fx.Graph) -> None:
    """Powers of sizes as what a file can hold: squares as products, others of real numbers alone.

    Args:
        graph: with the symbols of its values as tracing leaves them.
    """
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is operator.pow:
            base, exponent = node.args
            if isinstance(node.meta.get("val"), torch.SymFloat | float):
                node.target = power
            elif exponent == SQUARE:
                node.target, node.args = operator.mul, (base, base)
