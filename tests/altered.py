"""Networks whose layers compute something else than their class says, in every way that PyTorch has."""

import types

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune


class Residual(nn.Module):
    """No row: two layers beside a shortcut."""

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x).relu()
        return self.head(x + self.middle(x).relu())


class Twice(nn.Module):
    """A parametrization of somebody's own."""

    def forward(self, weight):
        return 2 * weight


def sequence():
    """A plain row, and the layer of it that is altered."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    return network, network[2]


def residual():
    """A network of its own class, and the layer of it that is altered."""
    torch.manual_seed(0)
    network = Residual()
    return network, network.middle


NETWORKS = {"sequence": sequence, "class": residual}


def _old_weight_norm(layer):
    nn.utils.weight_norm(layer)
    with torch.no_grad():
        layer.weight_g.mul_(1.5)  # so that it is not what the layer began with


def _mask(layer):
    prune.l1_unstructured(layer, "weight", 0.5)


def _masks(layer):
    prune.l1_unstructured(layer, "weight", 0.3)
    prune.ln_structured(layer, "weight", 0.25, n=2, dim=0)
    prune.random_unstructured(layer, "bias", 0.5)


def _method(layer):
    layer.forward = types.MethodType(lambda self, x: F.linear(x, 2 * self.weight, self.bias), layer)


def _closure(layer):
    inner = layer.forward
    layer.forward = lambda x: 2 * inner(x)


def _tensor(layer):
    weight = 2 * layer.weight.detach()
    del layer.weight
    layer.weight = weight


def _sizes(layer):
    layer.out_features += 1


OUTPUTS = {
    "mask": _mask,
    "masks": _masks,
    "old weight norm": _old_weight_norm,
    "weight norm": parametrizations.weight_norm,
    "parametrization": lambda layer: parametrize.register_parametrization(layer, "weight", Twice()),
    "hook": lambda layer: layer.register_forward_hook(lambda _, inputs, outputs: 2 * outputs),
    "hook with names": lambda layer: layer.register_forward_hook(
        lambda _, inputs, named, outputs: 2 * outputs, with_kwargs=True
    ),
    "pre-hook": lambda layer: layer.register_forward_pre_hook(lambda _, inputs: (2 * inputs[0],)),
    "method": _method,
    "another buffer": lambda layer: layer.register_buffer("count", torch.ones(2)),
}
"""What every copy and every graph can follow."""

UNTRAINED = {"plain tensor": _tensor, "wrong size": _sizes}
"""What can be followed, but is no parameter any more, or nothing that its class would build."""

REFUSED = {
    "old spectral norm": (
        nn.utils.spectral_norm,
        r"spectral norm of 'weight': torch\.nn\.utils\.remove_spec",
    ),
    "spectral norm": (parametrizations.spectral_norm, r"spectral norm of 'weight': .*remove_parametriz"),
    "closure": (_closure, r"goes on computing with the original's '(2|middle)\.weight'.*del network"),
}
"""What no graph can follow: how, and the remedy that is told."""

GRADIENTS = {
    "backward hook": lambda layer: layer.register_full_backward_hook(lambda _, of_inputs, of_outputs: None),
    "backward pre-hook": lambda layer: layer.register_full_backward_pre_hook(lambda _, of_outputs: None),
    "gradient": lambda layer: layer.weight.register_hook(lambda gradient: 0 * gradient),
    "accumulated": lambda layer: layer.bias.register_post_accumulate_grad_hook(lambda bias: None),
}
"""What bears on gradients alone."""
