"""Layers that compute something else than their class says, or not with their own tensors.

What is taken for a plain layer is rebuilt from its class, its arguments and its tensors. That is wrong where
somebody has changed what an instance computes: with a mask of ``torch.nn.utils.prune``, with a weight that is
computed before every call, with a hook, or with another ``forward``. This is the one place that knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn, no_grad
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations, parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.layer_form import built, described

OUTPUTS, MOVING, GRADIENTS = "outputs", "moving", "gradients"
"""What an alteration touches: outputs; outputs, by numbers that every call in training moves; or gradients
alone."""

PLAIN_WEIGHTS = (
    "bp.structure.plain_weights(network) is a copy with all such weights as plain parameters, of the values "
    "that they have in evaluation."
)
"""What takes everything off at once that computes weights."""

_GLOBAL = {
    "_global_forward_pre_hooks": "register_module_forward_pre_hook",
    "_global_forward_hooks": "register_module_forward_hook",
    "_global_backward_pre_hooks": "register_module_full_backward_pre_hook",
    "_global_backward_hooks": "register_module_full_backward_hook",
}
"""Where PyTorch keeps hooks that run at every module of the process, and what puts them there."""

_COMPUTING = {
    WeightNorm: ("a weight norm of", "name", "remove_weight_norm", remove_weight_norm),
    SpectralNorm: ("a spectral norm of", "name", "remove_spectral_norm", remove_spectral_norm),
    prune.BasePruningMethod: ("a mask on", "_tensor_name", "prune.remove", prune.remove),
}
"""Hooks that compute a tensor before every call: what they are, where its name is, what takes them off."""


@dataclass(frozen=True)
class Alteration:
    """One thing that makes a module another one than its class.

    Attributes:
        name: of the module in its network; empty for the network itself.
        module: the module.
        what: alters it.
        remedy: code that takes it off; ``{}`` in it is the module.
        touches: ``OUTPUTS``, ``MOVING`` or ``GRADIENTS``.
        hook: of PyTorch's own, that computes a tensor before every call, where that is what it is.
        computes: whether it computes a tensor before every call.
    """

    name: str
    module: nn.Module = field(repr=False)
    what: str
    remedy: str
    touches: str = OUTPUTS
    hook: Any = None
    computes: bool = False

    def __str__(self) -> str:
        """Place, what and remedy; ``network`` is what was handed over."""
        return f"{self.place} has {self.what}: {self.action}"

    @property
    def place(self) -> str:
        """Name and class of the module."""
        kind = type(self.module).__name__
        return f"Module {self.name!r} ({kind})" if self.name else f"The {kind} itself"

    @property
    def action(self) -> str:
        """What takes it off."""
        return self.remedy.format(f"network.get_submodule({self.name!r})" if self.name else "network")

    @property
    def computed(self) -> Tensor | None:
        """What the last call left behind of a tensor that is computed before every call."""
        value = None if self.hook is None else vars(self.module).get(_computing(self.hook)[1])
        return value if isinstance(value, Tensor) else None

    def undo(self) -> None:
        """Take it off where a function of PyTorch's does; outputs in evaluation stay what they are."""
        if self.hook is not None:
            _, tensor, _, function = _computing(self.hook)
            function(self.module, tensor)


def alterations(network: nn.Module) -> list[Alteration]:
    """Everything in a network that makes a module another one than its class.

    Args:
        network: any module.

    Returns:
        In the order of its modules; empty for most.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> _ = prune.l1_unstructured(network[0], "weight", 0.5)
        >>> print(alterations(network)[0])
        Module '0' (Linear) has a mask on 'weight': torch.nn.utils.prune.remove(network.get_submodule('0'), 'weight')
    """  # noqa: E501
    return [found for name, module in network.named_modules() for found in _of(name, module)]


def alter_outputs(network: nn.Module) -> list[Alteration]:
    """Those that bear on what the network computes, not on gradients alone."""
    return [found for found in alterations(network) if found.touches != GRADIENTS]


def _of(name: str, module: nn.Module) -> Iterator[Alteration]:
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, tuple(_COMPUTING)):
            what, tensor, remedy, _ = _computing(hook)
            touches = MOVING if isinstance(hook, SpectralNorm) else OUTPUTS
            code = f"torch.nn.utils.{remedy}({{}}, {tensor!r})"
            yield Alteration(name, module, f"{what} {tensor!r}", code, touches, hook, computes=True)
        else:
            yield _hook(name, module, "a forward pre-hook", "_forward_pre_hooks")
    if module._forward_hooks:
        yield _hook(name, module, "a forward hook", "_forward_hooks")
    for kind in ("_backward_hooks", "_backward_pre_hooks"):
        if getattr(module, kind):
            yield _hook(name, module, "a backward hook", kind, GRADIENTS)
    if parametrize.is_parametrized(module):
        yield from _parametrised(name, module)
    if "forward" in vars(module) and not hasattr(module.forward, "flat"):  # one of ours, while it is traced
        remedy = "del {}.forward, and write it as a method of a subclass"
        yield Alteration(name, module, "a forward of its own", remedy)
    for leaf, parameter in module._parameters.items():
        for kind in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            if getattr(parameter, kind, None):
                what, remedy = (
                    f"a hook on the gradient of {leaf!r}",
                    f"handle.remove(), or {{}}.{leaf}.{kind} = None",
                )
                yield Alteration(name, module, what, remedy, GRADIENTS)


def _computing(hook: Any) -> tuple[str, str, str, Any]:
    """Of a hook that computes a tensor: what it is, which tensor, and what takes it off."""
    kind = next(kind for kind in _COMPUTING if isinstance(hook, kind))
    what, key, remedy, function = _COMPUTING[kind]
    return what, getattr(hook, key), remedy, function


def _parametrised(name: str, module: Any) -> Iterator[Alteration]:
    for tensor, how in module.parametrizations.items():
        spectral = any(isinstance(part, parametrizations._SpectralNorm) for part in how)
        what = f"a {'spectral norm' if spectral else 'parametrization'} of {tensor!r}"
        remedy = f"torch.nn.utils.parametrize.remove_parametrizations({{}}, {tensor!r})"
        yield Alteration(name, module, what, remedy, MOVING if spectral else OUTPUTS, computes=True)


def _hook(name: str, module: nn.Module, what: str, kind: str, touches: str = OUTPUTS) -> Alteration:
    return Alteration(name, module, what, f"handle.remove(), or {{}}.{kind}.clear()", touches)


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer of ``torch.nn`` is what its class and arguments say, and nothing else.

    Args:
        layer: of a class that keeps its arguments as attributes.

    Returns:
        No alteration of its outputs, the tensors of its class and no other ones, each of the size that its
        arguments say, and no method replaced.
    """
    methods = any(callable(value) and hasattr(type(layer), name) for name, value in vars(layer).items())
    if methods or any(found.touches != GRADIENTS for found in _of("", layer)):
        return False
    if layer._non_persistent_buffers_set or any(True for _ in layer.children()):
        return False
    try:
        return _shapes(built(type(layer), described(layer))) == _shapes(layer)
    except (ValueError, TypeError, AttributeError, RuntimeError):  # arguments that its constructor refuses
        return False


def _shapes(module: nn.Module) -> dict[str, Any]:
    held: dict[str, Tensor | None] = {**module._parameters, **module._buffers}
    return {name: None if t is None else t.shape for name, t in held.items()}


def check_no_global_hooks(caller: str) -> None:
    """No hook that runs at every module of the process.

    Args:
        caller: who asks.

    Raises:
        UnsupportedNetworkError: there is one, of somebody else than PyTorch, whose own only look.
    """
    for kind, register in _GLOBAL.items():
        for hook in getattr(torch_module, kind).values():
            if not str(getattr(hook, "__module__", "")).startswith("torch."):
                raise UnsupportedNetworkError(
                    f"A hook on all modules (torch.nn.modules.module.{register}) changes what every layer "
                    f"does, and {caller} cannot tell it from the network: call handle.remove() first."
                )


def check_gradients(network: nn.Module, caller: str) -> None:
    """No hook of a network changes gradients: whoever trains it otherwise than by its own modules drops it.

    Args:
        network: the user's.
        caller: who asks.

    Raises:
        UnsupportedNetworkError: there are such hooks; all are named.
    """
    found = [alteration for alteration in alterations(network) if alteration.touches == GRADIENTS]
    if found:
        raise UnsupportedNetworkError(
            f"{_listed(found)}. {caller} computes gradients of its own, in which such hooks have no part."
        )


def check_followed(network: nn.Module, caller: str) -> None:
    """No spectral norm, old or new: every call in training moves numbers in it, outside of any graph.

    Args:
        network: the user's.
        caller: who asks.

    Raises:
        UnsupportedNetworkError: there are some; all are named.
    """
    found = [alteration for alteration in alterations(network) if alteration.touches == MOVING]
    if found:
        raise UnsupportedNetworkError(
            f"{_listed(found)}. {caller} cannot follow the power iteration of spectral norm, and without "
            f"some of its units a weight has another norm. {PLAIN_WEIGHTS}"
        )


def check_present(network: nn.Module, names: Iterable[str]) -> None:
    """A network still has, as a parameter or buffer, every tensor that units are cut from.

    Args:
        network: under gates.
        names: of tensors.

    Raises:
        UnsupportedNetworkError: one is gone, as where somebody has put a mask on it since; it is named.
    """
    parameters, buffers = network.named_parameters, network.named_buffers
    there = {n for n, _ in (*parameters(remove_duplicate=False), *buffers(remove_duplicate=False))}
    gone = sorted(name for name in names if name not in there)
    if gone:
        raise UnsupportedNetworkError(
            f"Units cannot be removed from {', '.join(map(repr, gone))}: the gated network "
            f"has no such tensor any more. Nothing was removed.{hint(network)} Take off what was put on its "
            "layers since gate(), or gate the network that is altered already."
        )


def hint(network: nn.Module) -> str:
    """What of a network may be why it could not be read: a sentence for the end of a message, or nothing."""
    found = alter_outputs(network)
    more = f" {PLAIN_WEIGHTS}" if any(alteration.computes for alteration in found) else ""
    return f" {_listed(found)}.{more}" if found else ""


def drop_gradient_hooks_(network: nn.Module) -> nn.Module:
    """Take off the hooks that bear on gradients alone, for a copy of which only outputs are wanted.

    Args:
        network: changed in place.
    """
    for module in network.modules():
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    return network


def recompute_(network: nn.Module) -> None:
    """Let hooks compute now what they compute before every call: of a cut layer it has the size of old.

    Args:
        network: changed in place; without spectral norms, whose calls count.
    """
    for alteration in alterations(network):
        if alteration.hook is not None and alteration.touches == OUTPUTS:
            with no_grad():
                alteration.hook(alteration.module, None)


def bake_(network: nn.Module) -> nn.Module:
    """Take off what computes weights before every call; outputs in evaluation stay what they are.

    Args:
        network: changed in place.
    """
    network.eval()
    for alteration in alterations(network):
        alteration.undo()
    return network


def _listed(found: list[Alteration]) -> str:
    told = "; ".join(map(str, found[:4]))
    return told if len(found) <= 4 else f"{told}; and {len(found) - 4} more"
