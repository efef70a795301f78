"""The tree of names of a network that runs as a graph: layers of torch.nn where they fit, else plain places.

Nothing in the tree computes. It holds parameters and buffers under the names that they always had, and says
in its ``repr`` what they belong to.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bayesprune.structure.layer_form import built, described
from bayesprune.structure.layers import NORMS, PRODUCERS

LAYERS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        *PRODUCERS, *NORMS,
        nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Embedding, nn.PReLU, nn.LayerNorm,
        nn.RMSNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
    )
}  # fmt: skip
"""Layers that are kept as such in the tree; what is of another class becomes a ``Part``."""


class Part(nn.Module):
    """A place in the tree: it holds what a module of the network held, and computes nothing.

    Args:
        kind: class of the module that it stands for.

    Example:
        >>> part = Part("Mixer")
        >>> part.register_parameter("scale", nn.Parameter(Tensor(3)))
        >>> part
        Mixer(scale (3,))
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._bayesprune_kind = kind

    def forward(self, *_: Any, **__: Any) -> Any:
        """Parts do not run.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"This {self._bayesprune_kind} only holds parameters: what it did is part of the whole network's "
            "graph. Call the network."
        )

    def __getitem__(self, key: int | str) -> nn.Module:
        """A part by its number or key, as lists, sequences and dicts of modules have it."""
        return self.get_submodule(str(key))

    def _get_name(self) -> str:
        return self._bayesprune_kind

    def extra_repr(self) -> str:
        """What it holds itself, with shapes."""
        own = {**self._parameters, **self._buffers}
        return ", ".join(f"{name} {tuple(t.shape)}" for name, t in own.items() if t is not None)


def kind_of(module: nn.Module) -> str:
    """Class of a module; of one that runs as its graph, or holds a place, that of the module that it was."""
    program = vars(module).get("_bayesprune_program")
    known = vars(module).get("_bayesprune_kind") if program is None else program.kind
    return known or type(module).__name__


def shell(module: nn.Module) -> nn.Module:
    """A module's place without its numbers.

    Args:
        module: of any class.

    Returns:
        A layer of the same class and arguments, where that is one of ``LAYERS`` and its tensors have numbers
        and the shapes that those arguments say; else a ``Part``.
    """
    kind = type(module)
    if isinstance(module, Part) or kind_of(module) != kind.__name__:
        return Part(kind_of(module))
    held = (*module._parameters.values(), *module._buffers.values())
    lost = any(tensor is not None and not tensor.numel() for tensor in held)
    if LAYERS.get(kind.__name__) is kind and not lost:
        try:
            layer = built(kind, described(module))
        except (ValueError, TypeError, AttributeError, RuntimeError):
            return Part(kind.__name__)
        if _shapes(layer) == _shapes(module):
            return layer
    return Part(kind.__name__)


def bare(network: nn.Module, kind: str | None = None) -> Part:
    """A network's tree of names, over its own parameters and buffers.

    Args:
        network: any module.
        kind: what to call the root; by default the network's class.

    Returns:
        The tree. What holds no tensor is left out; a module that has two names is one module again.
    """
    root = Part(kind or kind_of(network))
    fill_(root, network)
    return root


def fill_(place: nn.Module, module: nn.Module, memo: dict[int, nn.Module] | None = None) -> None:
    """Put a module's tensors, and its children's places, into its place.

    Args:
        place: from `shell`.
        module: what it stands for.
        memo: places made so far, by the identity of their modules.
    """
    memo = {} if memo is None else memo
    memo[id(module)] = place
    for name, parameter in module._parameters.items():
        place.register_parameter(name, parameter)
    for name, buffer in module._buffers.items():
        lasting = name not in module._non_persistent_buffers_set
        place.register_buffer(name, buffer, persistent=lasting)
    for name, child in module._modules.items():
        if child is None or not (any(True for _ in child.parameters()) or any(True for _ in child.buffers())):
            continue
        if id(child) not in memo:
            fill_(shell(child), child, memo)
        place.add_module(name, memo[id(child)])
    place.training = module.training


def _shapes(module: nn.Module) -> dict[str, Any]:
    held: dict[str, Tensor | None] = {**module._parameters, **module._buffers}
    return {name: None if t is None else t.shape for name, t in held.items()}
