r"""Who moves the weights: fused Adam by default, or any optimiser of the user's.

The objective is the negative ELBO per row, so that a weight's Gaussian prior N(0, s²) adds the gradient
w / (N s²) to that of the mean negative log-likelihood, N being the rows of the training set.

- Adam and SGD take that as their ``weight_decay`` = 1/(N s²): both add decay · w to the gradient, and the
  default Adam gets it so, which costs nothing.
- AdamW's decay shrinks weights beside the gradient, undivided by the second moment (Loshchilov & Hutter
  2019, "Decoupled weight decay regularization"); that is the gradient of no prior. So for whatever optimiser
  a user brings, w / (N s²) is added to ``.grad`` before it steps, and its own ``weight_decay`` should be 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.callers import level
from bayesprune.errors import PriorWarning, SettingsError
from bayesprune.gated import GatedModel

Optimizer = torch.optim.Optimizer | Callable[[list[nn.Parameter]], torch.optim.Optimizer]
"""An optimiser over the gated model's parameters, its class, or a function of parameters that makes it."""


def adam(gated: GatedModel, learning_rate: float) -> torch.optim.Adam:
    """Fused Adam over everything but the gates; a weight's Gaussian prior is its decay, 1/(rows · scale²).

    Args:
        gated: the model.
        learning_rate: of all of them.

    Returns:
        The optimiser, one parameter group for each prior scale.
    """
    by_decay: dict[float, list[nn.Parameter]] = {decay: ps for decay, ps in decays(gated).items()}
    priced = {id(p) for ps in by_decay.values() for p in ps}
    by_decay.setdefault(0.0, []).extend(p for p in moved(gated).values() if id(p) not in priced)
    groups = [{"params": ps, "weight_decay": decay} for decay, ps in by_decay.items() if ps]
    return torch.optim.Adam(groups, lr=learning_rate, fused=True)


def moved(gated: GatedModel) -> dict[str, nn.Parameter]:
    """Name → parameter that an optimiser moves: all but gates and their links, and what has a closed form."""
    own = (*gated.links.parameters(), *gated.continuous.parameters())
    closed = {id(p) for p in (gated.log_odds, *own, *gated.likelihood.followed())}
    return {name: p for name, p in gated.named_parameters() if id(p) not in closed}


def decays(gated: GatedModel) -> dict[float, list[nn.Parameter]]:
    """1/(N s²) → the weights that are points under a prior N(0, s²), N being the rows of the training set."""
    found: dict[float, list[nn.Parameter]] = {}
    rows, scales = gated.likelihood.rows, gated.log_scales_by_tensor()
    for name, parameter in gated.weight_tensors().items():
        decay = 0.0 if name in scales else 1 / (rows * gated.weights.scale_of(name) ** 2)
        found.setdefault(decay, []).append(parameter)
    return found


def add_prior_gradient_(priced: Mapping[float, list[nn.Parameter]], scale: Tensor | None = None) -> None:
    """Add w / (N s²) to the gradient of every weight.

    Args:
        priced: 1/(N s²) → weights, as ``decays`` gives them.
        scale: what the gradients are multiplied by, where a GradScaler has done so.
    """
    for decay, parameters in priced.items():
        weights = [p for p in parameters if p.requires_grad and decay]
        if not weights:
            continue
        gradients = []
        for weight in weights:
            if weight.grad is None:  # the loss does not hang on it; its prior does
                weight.grad = torch.zeros_like(weight)
            gradients.append(weight.grad)
        factor = decay if scale is None else decay * float(scale)
        torch._foreach_add_(gradients, [w.detach() for w in weights], alpha=factor)


def given(gated: GatedModel, optimizer: Any) -> torch.optim.Optimizer:
    """A user's optimiser, made where it is a class or a function, and looked at.

    Args:
        gated: the model.
        optimizer: see ``Optimizer``.

    Raises:
        SettingsError: it is none, takes no single steps, climbs instead of descending, holds what is no
            parameter of this model, or lacks parameters of the network that are to be learnt.

    Warns:
        PriorWarning: it has a decay of weights of its own, beside their prior.
    """
    made = optimizer if isinstance(optimizer, torch.optim.Optimizer) else _made(gated, optimizer)
    name = type(made).__name__
    if isinstance(made, torch.optim.LBFGS):
        raise SettingsError(
            "LBFGS runs the loss again and again within a step, by a closure, and the loss of a gated model "
            "is drawn anew each time. Take an optimiser of single steps, such as SGD, Adam or AdamW."
        )
    if any(group.get("maximize") for group in made.param_groups):
        raise SettingsError(f"{name} has maximize=True, and a loss is to fall. Leave it out.")
    _check_held(gated, made)
    _tell_decay(gated, made)
    return made


def _made(gated: GatedModel, maker: Any) -> torch.optim.Optimizer:
    if not callable(maker):
        raise SettingsError(
            f"optimizer={maker!r} must be an optimiser of PyTorch, its class, or a function of parameters "
            "that makes one: optimizer=lambda params: torch.optim.SGD(params, lr=0.1)."
        )
    made = maker([p for p in moved(gated).values() if p.requires_grad])
    if not isinstance(made, torch.optim.Optimizer):
        raise SettingsError(
            f"optimizer= made a {type(made).__name__}, which is no torch.optim.Optimizer: return one."
        )
    return made


def _check_held(gated: GatedModel, optimizer: torch.optim.Optimizer) -> None:
    """The optimiser holds parameters of this model, and all of its network that are learnt."""
    held = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    own = {id(p) for p in gated.parameters()}
    name, strange = type(optimizer).__name__, [p for key, p in held.items() if key not in own]
    if strange:
        shapes = ", ".join(str(tuple(p.shape)) for p in strange[:4])
        raise SettingsError(
            f"{name} holds {len(strange)} tensors that are no parameters of the gated model (of shapes "
            f"{shapes}): those of the network that was gated, which gate() copies, or ones that have been "
            f"removed. Make it after bp.gate(), from gated.parameters(): {name}(gated.parameters(), …)."
        )
    learnt = {f"network.{n}": p for n, p in gated.network.named_parameters() if p.requires_grad}
    missing = [n for n, p in learnt.items() if id(p) not in held]
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise SettingsError(
            f"{name} does not hold {', '.join(missing[:4])}{more}, which would stay as they are: make it "
            "from gated.parameters(), or freeze them in your network, requires_grad_(False), before gate()."
        )


def _tell_decay(gated: GatedModel, optimizer: torch.optim.Optimizer) -> None:
    """Say what an optimiser's own decay means, beside the weights' prior."""
    found = sorted({float(g.get("weight_decay") or 0.0) for g in optimizer.param_groups} - {0.0})
    if not found:
        return
    name, decay = type(optimizer).__name__, found[-1]
    decoupled = isinstance(optimizer, torch.optim.AdamW) or any(
        group.get("decoupled_weight_decay") for group in optimizer.param_groups
    )
    deviation = (gated.likelihood.rows * decay) ** -0.5
    means = (
        "shrinks weights beside their gradient, which is the gradient of no prior"
        if decoupled
        else f"is a Gaussian prior of its own, of standard deviation {deviation:.3g}"
    )
    warnings.warn(
        f"{name}(weight_decay={decay:g}) {means}, and the ELBO does not know of it. The weights' prior is "
        "added to their gradient for every optimiser: give weight_decay=0, and bp.gate(weights=bp.priors."
        "NormalWeights(scale=…)) for another one.",
        PriorWarning,
        stacklevel=level(),
    )


class Together:
    """What several optimisers keep, for a removal that cuts all of it.

    Args:
        optimisers: of parameters that are not each other's.
    """

    def __init__(self, *optimisers: torch.optim.Optimizer) -> None:
        self._optimisers = optimisers

    @property
    def state(self) -> dict[Tensor, Any]:
        """Parameter → name → what is kept."""
        return {p: kept for optimiser in self._optimisers for p, kept in optimiser.state.items()}


def forget_(optimizer: torch.optim.Optimizer, gated: GatedModel) -> None:
    """Let go of parameters that went with a section, and of what is kept of them.

    Args:
        optimizer: changed in place; its groups stay, and may be empty.
        gated: the model, after a removal.
    """
    own = {id(p) for p in gated.parameters()}
    for group in optimizer.param_groups:
        gone = [p for p in group["params"] if id(p) not in own]
        if gone:
            group["params"] = [p for p in group["params"] if id(p) in own]
            for parameter in gone:
                optimizer.state.pop(parameter, None)
