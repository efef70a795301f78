"""torchvision's classification networks, random and small: nothing in them is trivially zero."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from zoo_torchvision import torchvision_models

ROWS = 2
SIZE = 64
"""Height and width of the images, where a network accepts them."""

SIZES = {"inception_v3": 139, "maxvit_t": 224, "vit_h_14": 56}
"""The least that the others accept: maxvit divides every map into windows of 7."""

SETTINGS: dict[str, dict[str, Any]] = {
    # Its auxiliary classifier needs images of 299, in train mode only.
    "inception_v3": {"aux_logits": False, "init_weights": False},
    "googlenet": {"init_weights": False},
}


def names() -> list[str]:
    """All image classification networks of the installed torchvision."""
    models = torchvision_models()
    return list(models.list_models(module=models))


def build(name: str, dtype: torch.dtype) -> nn.Module:
    """A network in train mode, without chance, with random parameters and statistics.

    Args:
        name: torchvision's.
        dtype: of its parameters; they are the same numbers in every type.

    Raises:
        SystemExit: no network has that name.
    """
    models = torchvision_models()
    if name not in names():
        raise SystemExit(f"torchvision has no classification network {name!r}; see names() for those it has.")
    torch.manual_seed(0)
    settings = dict(SETTINGS.get(name, {}))
    if name.startswith("vit_"):  # these have a position for every patch
        settings["image_size"] = SIZES.get(name, SIZE)
    network = models.get_model(name, weights=None, **settings)
    return without_chance_(randomise_(network, batch(name, torch.float32, rows=8))).to(dtype).train()


def batch(name: str, dtype: torch.dtype, rows: int = ROWS, seed: int = 0) -> Tensor:
    """(rows, 3, size, size), standard normal."""
    generator = torch.Generator().manual_seed(seed)
    size = SIZES.get(name, SIZE)
    return torch.randn(rows, 3, size, size, generator=generator).to(dtype)


@torch.no_grad()
def randomise_(network: nn.Module, x: Tensor) -> nn.Module:
    """Spread what initialisation left constant, and give random values to the running statistics.

    Each statistic is taken from what arrives at its layer, then moved by a third of a standard deviation and
    by factors between a half and two, before the layers behind it are run: activations stay of a size through
    a hundred layers, and rounding errors small.
    """
    for parameter in network.parameters():
        if bool((parameter == parameter.flatten()[0]).all()):
            parameter.copy_(_spread(parameter))
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(_unsettle_) for norm in norms]
    network.eval()(x)
    for hook in hooks:
        hook.remove()
    return network


def _unsettle_(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    (x,) = arguments
    others = [d for d in range(x.ndim) if d != 1]
    mean, variance = x.mean(others), x.var(others)
    variance.clamp_min_(variance.mean() / 4)
    norm.running_mean.copy_(mean + torch.randn_like(mean) * variance.sqrt() / 3)
    norm.running_var.copy_(variance * (0.5 + 1.5 * torch.rand_like(variance)))


def _spread(constant: Tensor) -> Tensor:
    """What a constant parameter becomes: a weight, a scale, or a shift."""
    if constant.ndim >= 2 and constant.shape[0] > 1 and constant[0].numel() > 1:
        return torch.randn_like(constant) / math.sqrt(constant[0].numel())
    value = constant.flatten()[0].item()
    if value == 0:
        return 0.3 * torch.randn_like(constant)
    return 0.5 * max(abs(value), 0.3) * (1 + 2 * torch.rand_like(constant))  # layer scales start at 1e-6


def without_chance_(network: nn.Module) -> nn.Module:
    """Set the probability of every dropout and stochastic depth to zero: a narrower network draws others."""
    for module in network.modules():
        for attribute in ("p", "dropout", "attention_dropout", "drop_rate"):
            if isinstance(getattr(module, attribute, None), float):
                setattr(module, attribute, 0.0)
    return network
