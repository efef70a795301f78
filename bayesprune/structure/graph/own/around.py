"""What the code around a module looks for in it, where something else stands in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import fx, nn
from torch.fx.graph_module import _USER_PRESERVED_ATTRIBUTES_KEY as KEPT_IN_COPIES

from bayesprune.structure.plain import PlainGraph

OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes of every module."""


def note_alike_(other: nn.Module, module: nn.Module) -> None:
    """Let what stands in a module's place note what that notes, but sizes: ``batch_first``, for one.

    Numbers are left out: they may be those of before. Who reads one finds nothing, and does not compute with
    it. Parameters that are gone are None, as they are of layers that never had them.

    Args:
        other: changed in place.
        module: that it stands for.
    """
    flags = {name: v for name, v in vars(module).items() if v is None or type(v) in (bool, str)}
    noted: dict[str, Any] = (
        flags if isinstance(other, PlainGraph) else dict.fromkeys(module._parameters) | flags
    )
    known = OF_EVERY_MODULE.union(vars(other), dir(type(other)))
    noted = {name: value for name, value in noted.items() if name not in known}
    for name, value in noted.items():
        setattr(other, name, value)
    if isinstance(other, fx.GraphModule):
        other.meta[KEPT_IN_COPIES] = noted


SHORTCUTS = (
    (nn.TransformerEncoderLayer, "activation_relu_or_gelu", 0),
    (nn.TransformerEncoder, "use_nested_tensor", False),
)
"""Attributes by which PyTorch's encoder knows in evaluation whether a layer may be computed at once, out of
its parts' parameters and without calling them; and whether padded positions may be left away, which only such
layers can follow. And the values that say no."""


def shortcuts(network: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Shortcuts of PyTorch's encoders past modules that something else stands in for.

    Args:
        network: of any class.

    Yields:
        Name of the module, its attribute, and the value at which it calls its parts.
    """
    for name, module in network.named_modules():
        for kind, attribute, value in SHORTCUTS:
            if isinstance(module, kind) and attribute in vars(module) and _replaced(module):
                yield name, attribute, value


def _replaced(module: nn.Module) -> bool:
    """Whether something stands in for one of its parts."""
    return any(isinstance(part, PlainGraph | fx.GraphModule | nn.Identity) for part in module.modules())
