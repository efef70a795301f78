"""Sizes that layers keep as attributes follow their parameters after a cut."""

from __future__ import annotations

from torch import Tensor, nn, no_grad

from bayesprune.errors import DataError
from bayesprune.structure.altered import recompute_
from bayesprune.structure.layers import resize_
from bayesprune.structure.running import evaluating

Instance = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d


def resize_layers_(network: nn.Module) -> None:
    """Layers of ``torch.nn`` with tensors of their own take their sizes from those.

    Args:
        network: changed in place.
    """
    recompute_(network)
    for layer in network.modules():
        resize_(layer)
        if isinstance(layer, nn.LayerNorm | nn.RMSNorm) and layer.weight is not None:
            layer.normalized_shape = tuple(layer.weight.shape)
        elif isinstance(layer, Instance):
            size = layer.weight if layer.affine else layer.running_mean
            layer.num_features = layer.num_features if size is None else len(size)


def resize_by_inputs_(network: nn.Module, example: tuple[Tensor, ...]) -> None:
    """Norms without parameters take the size of what they are given.

    Args:
        network: changed in place; one of a class with sizes written down may not run, and is left.
        example: inputs that it is run on.
    """

    def follow(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
            layer.normalized_shape = tuple(inputs[0].shape[-len(layer.normalized_shape) :])
        else:
            layer.num_features = inputs[0].shape[1]  # type: ignore[assignment]

    kinds = nn.LayerNorm | nn.RMSNorm | Instance
    norms = [
        layer for layer in network.modules() if isinstance(layer, kinds) and not list(layer.parameters())
    ]
    hooks = [layer.register_forward_pre_hook(follow) for layer in norms]
    try:
        if norms:
            with no_grad(), evaluating(network):
                network(*example)
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError, DataError):
        pass  # then its graphs are run
    finally:
        for hook in hooks:
            hook.remove()
