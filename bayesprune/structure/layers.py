"""The plain layers, by what they mean for units."""

from __future__ import annotations

from torch import nn

PRODUCERS: frozenset[type[nn.Module]] = frozenset({nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d})
"""Layers that read all units of their input and make new ones."""

NORMS: frozenset[type[nn.Module]] = frozenset({nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d})
"""Layers that treat every unit on its own, with parameters of its own."""

POINTWISE: frozenset[type[nn.Module]] = frozenset(
    {
        nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
        nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign,
        nn.LogSigmoid,
        nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
        nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
        nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
        nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    }
)  # fmt: skip
"""Layers that treat every unit on its own, without parameters: activations, pooling, dropout."""

POOLS: dict[type[nn.Module], int] = {
    getattr(nn, f"{kind}Pool{dims}d"): dims
    for kind in ("Max", "Avg", "AdaptiveAvg", "AdaptiveMax")
    for dims in (1, 2, 3)
}
"""Pooling layers and the dimensions they pool over: given one dimension less they would pool across units."""

ACROSS: frozenset[type[nn.Module]] = frozenset({nn.Softmax, nn.LogSoftmax})
"""Layers that read across units: allowed only after the last producer, where nothing is removed."""

SIZES = (
    "in_features", "out_features", "in_channels", "out_channels", "groups", "num_features", "num_groups",
    "num_channels", "normalized_shape", "num_parameters", "num_embeddings", "embedding_dim", "input_size",
    "hidden_size", "proj_size", "embed_dim", "kdim", "vdim", "num_heads", "head_dim",
)  # fmt: skip
"""Attributes in which layers of ``torch.nn`` note sizes, which surgery changes as it changes parameters."""


def resize_(layer: nn.Module) -> None:
    """Make a layer's own size attributes agree with its parameters again."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        layer.out_channels, layer.in_channels = layer.weight.shape[:2]
    elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        tensor = layer.weight if layer.affine else layer.running_mean
        if tensor is not None:
            layer.num_features = len(tensor)
    elif isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        layer.in_channels, layer.out_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
    elif isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape
    elif isinstance(layer, nn.Bilinear):
        layer.out_features, layer.in1_features, layer.in2_features = layer.weight.shape
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = layer.weight.numel()
