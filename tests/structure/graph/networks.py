"""Small networks that an analysis of coupled units has to get right, each with what may be expected of it.

Every network is a class (or a function that builds one) registered by ``@case``; its last layer is called
``head``, so that the rows that nobody may remove are known by name. Widths are small and mostly unequal, for
a wrong dimension to fail by shape rather than pass by luck.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Case:
    """A network and what is expected of its analysis.

    Attributes:
        name: of the class or function.
        build: makes the network, with PyTorch's own initial values.
        inputs: rows → the arguments of one call, in float32 where they are not whole numbers.
        prunable: least share of the rows of all weights outside ``head`` that must belong to a unit.
        in_place: whether a cut network must be of the user's own class: its code reads every size from
            parameters, whatever the pattern of removed units.
        freezes: whether something in it reads across units, so that a reason must be reported.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    prunable: float
    in_place: bool
    freezes: bool

    def network(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
        """The network in train mode, with nothing in it that is zero or one by default."""
        torch.manual_seed(seed)
        return randomise_(self.build().to(dtype), seed).train()

    def batch(self, rows: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Inputs:
        """Random inputs of that many rows."""
        torch.manual_seed(1000 + seed)
        return tuple(x.to(dtype) if x.is_floating_point() else x for x in self.inputs(rows))


CASES: dict[str, Case] = {}


def images(channels: int = 3, size: int = 6) -> Callable[[int], Inputs]:
    return lambda rows: (torch.randn(rows, channels, size, size),)


def vectors(width: int) -> Callable[[int], Inputs]:
    return lambda rows: (torch.randn(rows, width),)


def sequences(length: int = 5, width: int = 4) -> Callable[[int], Inputs]:
    return lambda rows: (torch.randn(rows, length, width),)


def tokens(length: int = 5, vocabulary: int = 11) -> Callable[[int], Inputs]:
    return lambda rows: (torch.randint(vocabulary, (rows, length)),)


def case(
    prunable: float = 1.0,
    in_place: bool = True,
    inputs: Callable[[int], Inputs] | None = None,
    freezes: bool = False,
):
    """Register a network class, or a function that builds a network."""

    def register(build):
        name = build.__name__
        CASES[name] = Case(name, build, inputs or images(), prunable, in_place, freezes)
        return build

    return register


@torch.no_grad()
def randomise_(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and every running statistic a random value, so that nothing is trivially zero.

    Weights keep their outputs at about unit variance; scales, shifts, biases, slopes and positions are
    standard normal; running variances lie between a half and two.

    Args:
        network: changed in place.
        seed: of the values.

    Returns:
        The same network.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    for parameter in network.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 and parameter.shape[0] > 1 else 1
        parameter.copy_(normal(parameter) * 1.3 / math.sqrt(fan_in))
    for module in network.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.copy_(normal(module.running_mean))
            uniform = torch.rand(module.running_var.shape, generator=generator, dtype=torch.float64)
            module.running_var.copy_((0.5 + 1.5 * uniform).to(module.running_var))
    return network


def without_chance_(network: nn.Module) -> nn.Module:
    """Set every dropout probability to zero: a narrower network draws other random numbers."""
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return network


def removable_share(network: nn.Module, analysis) -> float:
    """Share of the channels of a network that belong to a unit: rows of its weights, ``head`` left out.

    Args:
        network: the dense network.
        analysis: what ``analyse`` found in it; an id below zero in a slot stands for "nobody's".

    Returns:
        Between 0 and 1.
    """
    tensors = dict(network.named_parameters(remove_duplicate=False))  # tied weights have two names
    owned: dict[tuple[Tensor, int], Tensor] = {}
    for slot in analysis.slots:
        if slot.tensor in tensors:
            ids, key = slot.unit_ids >= 0, (tensors[slot.tensor], slot.dim)
            owned[key] = owned.get(key, torch.zeros_like(ids)) | ids
    channels = removable = 0
    for name, parameter in network.named_parameters():
        if parameter.ndim < 2 or "weight" not in name or name.startswith("head"):
            continue
        module = network.get_submodule(name.rpartition(".")[0])
        turned = isinstance(module, (nn.Embedding, nn.modules.conv._ConvTransposeNd))
        channels += parameter.shape[int(turned)]
        if (parameter, int(turned)) in owned:
            removable += int(owned[parameter, int(turned)].sum())
    return removable / channels


def conv_bn(inputs: int, outputs: int, kernel: int = 3, **settings) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **settings),
        nn.BatchNorm2d(outputs),
    )


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


# Chains, and where normalisation and activation stand


@case()
class PlainChain(nn.Sequential):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.act1 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()
        self.conv2, self.bn2, self.act2 = nn.Conv2d(6, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU()
        self.pool, self.flat, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)


@case()
class NormAfterActivation(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5, affine=False)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(pooled(self.bn2(F.silu(self.conv2(self.bn1(self.conv1(x).relu()))))))


@case(inputs=vectors(7))
class NonzeroAtZero(nn.Module):
    """cos(0) = 1, sigmoid(0) = ½, softplus(0) = log 2: a gate on the producer's side would leak."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.head = (
            nn.Linear(7, 6),
            nn.Linear(6, 5),
            nn.Linear(5, 4),
            nn.Linear(4, 3),
        )

    def forward(self, x):
        x = torch.sigmoid(self.fc2(torch.cos(self.fc1(x))))
        return self.head(F.softplus(self.fc3(x)) + 0.25)


@case(inputs=vectors(7))
class BiasFree(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.bn1 = nn.Linear(7, 6, bias=False), nn.BatchNorm1d(6)
        self.fc2, self.bn2 = nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5, track_running_stats=False)
        self.head = nn.Linear(5, 3, bias=False)

    def forward(self, x):
        return self.head(self.bn2(self.fc2(self.bn1(self.fc1(x)).exp().clamp(max=9.0))).tanh())


@case()
class ChannelsFirstFlatten(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.fc, self.head = nn.Linear(6 * 4, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = F.max_pool2d(self.bn(self.conv(x)), 2).sigmoid()
        return self.head(F.silu(self.fc(x.flatten(1))))


@case()
class ChannelsLastFlatten(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.fc, self.head = nn.Linear(6 * 4, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = F.avg_pool2d(self.bn(self.conv(x)), 2).sigmoid()
        return self.head(F.silu(self.fc(x.permute(0, 2, 3, 1).flatten(1))))


@case(in_place=False)
class LiteralView(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6 * 16, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.fc(self.conv(x).relu().view(-1, 96)).sigmoid())


@case()
class GlobalAveragePool(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"), nn.AdaptiveAvgPool2d(1)
        self.fc, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.fc(torch.flatten(self.pool(self.conv(x).sigmoid()), 1)).relu())


@case()
class MeanOverSpace(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding="same"), nn.Conv2d(6, 5, 1)
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        x = self.conv2(F.hardswish(self.conv1(x))).tanh()
        return self.head(torch.cat([x.mean([-2, -1]), x.amax((-2, -1))], 1))


# Branches


@case()
class ResidualIdentity(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv1, self.conv2 = conv_bn(3, 6), conv_bn(6, 5), conv_bn(5, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(pooled((x + self.conv2(self.conv1(x).relu())).sigmoid()))


@case()
class ResidualProjection(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv1, self.conv2 = conv_bn(3, 6), conv_bn(6, 5, stride=2), conv_bn(5, 7)
        self.project, self.head = conv_bn(6, 7, 1, stride=2), nn.Linear(7, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(pooled((self.project(x) + self.conv2(self.conv1(x).relu())).relu()))


@case(in_place=False)
class ResidualZeroPadded(nn.Module):
    """Option A of ResNet on CIFAR: the shortcut slices space with a stride and pads channels with zeros."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv1, self.conv2 = conv_bn(3, 4), conv_bn(4, 5, stride=2), conv_bn(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.head(pooled((shortcut + self.conv2(self.conv1(x).relu())).sigmoid()))


@case()
class DenseConcat(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, padding=1)
        self.bn1, self.conv1 = nn.BatchNorm2d(5), nn.Conv2d(5, 4, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(9), nn.Conv2d(9, 3, 3, padding=1)
        self.bn3, self.head = nn.BatchNorm2d(12), nn.Linear(12, 3)

    def forward(self, x):
        first = self.stem(x)
        second = self.conv1(self.bn1(first).relu())
        third = self.conv2(self.bn2(torch.cat([first, second], 1)).relu())
        return self.head(pooled(self.bn3(torch.cat([first, second, third], 1)).sigmoid()))


@case()
class InvertedResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.expand = conv_bn(3, 5), conv_bn(5, 10, 1)
        self.depthwise, self.project = conv_bn(10, 10, groups=10), conv_bn(10, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = F.relu6(self.stem(x))
        y = F.relu6(self.depthwise(F.relu6(self.expand(x))))
        return self.head(pooled((x + self.project(y)).sigmoid()))


@case(in_place=False)
class DepthMultiplier(nn.Module):
    """Each input channel makes two outputs, which need not die together."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 10, 3, groups=5)
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        return self.head(pooled(self.depthwise(self.stem(x).relu()).sigmoid()))


@case()
class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.middle = conv_bn(3, 5), conv_bn(5, 6)
        self.up, self.head = conv_bn(11, 4), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        skip = self.down(x).relu()
        deep = self.middle(F.max_pool2d(skip, 2)).relu()
        deep = F.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.up(torch.cat([deep, skip], 1)).sigmoid())


@case()
class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.squeeze, self.excite = conv_bn(3, 6), nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 1)
        self.conv, self.head = nn.Conv2d(6, 5, 3), nn.Linear(5, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        scale = self.excite(self.squeeze(F.adaptive_avg_pool2d(x, 1)).relu()).sigmoid()
        return self.head(pooled(self.conv(scale * x).relu()))


@case(inputs=vectors(7))
class BilinearGate(nn.Module):
    def __init__(self):
        super().__init__()
        self.value, self.gate = nn.Linear(7, 6), nn.Linear(7, 6)
        self.fc, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.fc(self.value(x) * torch.sigmoid(self.gate(x))).cos())


@case()
class SharedTwice(nn.Module):
    """One convolution and one normalisation, each applied twice: their inputs and outputs are one group."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.bn = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.bn(self.conv(self.stem(x).relu())).relu()
        return self.head(pooled(self.bn(self.conv(x)).sigmoid()))


# Groups of channels, and channels that move


class GroupedConvolution(nn.Module):
    def __init__(self, groups):
        super().__init__()
        self.stem, self.grouped = conv_bn(3, 8), nn.Conv2d(8, 12, 3, groups=groups)
        self.bn, self.head = nn.BatchNorm2d(12), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(pooled(self.bn(self.grouped(self.stem(x).sigmoid())).relu()))


@case(in_place=False)
def grouped_by_two():
    return GroupedConvolution(2)


@case(in_place=False)
def grouped_by_four():
    return GroupedConvolution(4)


@case(in_place=False)
class ResNeXtBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.reduce = conv_bn(3, 6), conv_bn(6, 8, 1)
        self.grouped, self.restore = conv_bn(8, 8, groups=4), conv_bn(8, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        y = self.restore(self.grouped(self.reduce(x).relu()).relu())
        return self.head(pooled((x + y).sigmoid()))


@case(in_place=False)
class ChannelShuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.grouped = conv_bn(3, 8), conv_bn(8, 6, groups=2)
        self.head = nn.Linear(6 * 4, 3)

    def forward(self, x):
        x = self.conv1(x).relu()
        rows, channels, height, width = x.shape
        x = x.view(rows, 2, channels // 2, height, width).transpose(1, 2).reshape(rows, -1, height, width)
        return self.head(F.adaptive_avg_pool2d(self.grouped(x).sigmoid(), 2).flatten(1))


@case(in_place=False)
class ShuffleThenSplit(nn.Module):
    """A unit of ShuffleNet V2: half of the channels passes by, and the halves are interleaved after."""

    def __init__(self):
        super().__init__()
        self.stem, self.shuffle = conv_bn(3, 8), nn.ChannelShuffle(2)
        self.branches, self.head = nn.ModuleList([conv_bn(4, 4), conv_bn(4, 4)]), nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        for branch in self.branches:
            left, right = x.chunk(2, dim=1)
            x = self.shuffle(torch.cat([left, branch(right).sigmoid()], 1))
        return self.head(pooled(x))


class Parts(nn.Module):
    """Channels taken apart, each part read by its own layer."""

    def __init__(self, sizes, take):
        super().__init__()
        self.take, self.stem = take, conv_bn(3, sum(sizes))
        self.conv = nn.ModuleList(nn.Conv2d(size, 4, 3) for size in sizes)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        parts = self.take(self.stem(x).sigmoid())
        outputs = [conv(part) for conv, part in zip(self.conv, parts, strict=True)]
        return self.head(pooled(F.silu(torch.stack(outputs).sum(0))))


def _in_slices(x):
    return x[:, :2], x[:, 2:-3], x[:, -3:]


def _every_other(x):
    return x[:, ::2], x[:, 1::2]


def _by_chunks(x):
    return x.chunk(2, dim=1)


def _by_sizes(x):
    return torch.split(x, [2, 5], dim=1)


def _picked(x):
    return x[:, [4, 0, 3]], x.index_select(1, torch.tensor([1, 2, 5], device=x.device))


@case(in_place=False)
def split_by_chunk():
    return Parts((4, 4), _by_chunks)


@case(in_place=False)
def split_by_sizes():
    return Parts((2, 5), _by_sizes)


@case(in_place=False)
def split_by_slices():
    return Parts((2, 4, 3), _in_slices)


@case(in_place=False)
def split_every_other():
    return Parts((4, 4), _every_other)


@case(in_place=False)
def picked_by_index():
    return Parts((3, 3), _picked)


class Moved(nn.Module):
    def __init__(self, move):
        super().__init__()
        self.move, self.stem = move, conv_bn(3, 7)
        self.conv, self.head = nn.Conv2d(7, 5, 3), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(pooled(self.conv(self.move(self.stem(x).sigmoid())).relu()))


def _roll(x):
    return torch.roll(x, 2, dims=1)


def _flip(x):
    return x.flip(1)


@case(in_place=False)
def rolled_channels():
    return Moved(_roll)


@case()
def flipped_channels():
    return Moved(_flip)


@case()
class PixelShuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.shuffle = nn.Conv2d(3, 5 * 4, 3), nn.PixelShuffle(2)
        self.conv2, self.head = nn.Conv2d(5, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(pooled(F.silu(self.conv2(self.shuffle(self.conv(x)).sigmoid()))))


@case()
class GatedLinearUnit(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.Linear(6, 8)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(F.glu(self.fc(pooled(F.glu(self.bn(self.conv(x)), dim=1)))))


@case()
class GatedByChunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        value, gate = self.bn(self.conv(x)).chunk(2, 1)
        return self.head(self.fc(pooled(value * F.gelu(gate))).relu())


@case()
class StackedAndAveraged(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.fc = conv_bn(3, 6), conv_bn(3, 6, 1), nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = torch.stack([self.left(x), self.right(x)], dim=1).sigmoid().mean(dim=1)
        return self.head(F.silu(self.fc(pooled(x))))


@case(in_place=False)
class StackedAndInterleaved(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.conv = conv_bn(3, 4), conv_bn(3, 4, 1), nn.Conv2d(8, 5, 3)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = torch.stack([self.left(x), self.right(x)], dim=2).flatten(1, 2)
        return self.head(pooled(self.conv(x.relu()).sigmoid()))


@case(in_place=False)
class Maxout(nn.Module):
    """The larger of two neighbours: a unit is the pair."""

    def __init__(self):
        super().__init__()
        self.conv, self.conv2, self.head = nn.Conv2d(3, 12, 3), nn.Conv2d(6, 5, 3), nn.Linear(5, 3)

    def forward(self, x):
        x = self.conv(x)
        x = x.view(x.shape[0], x.shape[1] // 2, 2, *x.shape[2:]).amax(2)
        return self.head(pooled(self.conv2(x).relu()))


# Operations that read across units


@case()
class SoftmaxOverChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(pooled(self.conv2(torch.softmax(self.conv1(x), 1)).cos()))


@case()
class CumulativeSum(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(pooled(self.conv2(torch.cumsum(self.conv1(x), 1) / 3).cos()))


@case(inputs=vectors(7))
class UnitLength(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.head = nn.Linear(7, 6), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.fc2(F.normalize(self.fc1(x), dim=-1)).sigmoid())


@case(prunable=0.9)  # its map of places is one channel
class SpatialAttention(nn.Module):
    """Mean and maximum over channels weigh the places, as in CBAM."""

    def __init__(self):
        super().__init__()
        self.stem, self.attend = conv_bn(3, 6), nn.Conv2d(2, 1, 3, padding=1)
        self.conv, self.head = nn.Conv2d(6, 5, 3), nn.Linear(5, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        places = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.head(pooled(self.conv(x * self.attend(places).sigmoid()).relu()))


@case()
class GroupNormalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6)
        self.conv2, self.head = nn.Conv2d(6, 5, 3), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(pooled(self.conv2(self.norm(self.conv1(x)).relu()).sigmoid()))


@case()
class InstanceNormalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(6, affine=True)
        self.conv2, self.norm2 = (
            nn.Conv2d(6, 5, 1),
            nn.InstanceNorm2d(5, affine=True, track_running_stats=True),
        )
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(pooled(self.norm2(self.conv2(self.norm1(self.conv1(x)).relu())).sigmoid()))


@case(inputs=sequences())
class LayerNormalised(nn.Module):
    """A pre-norm block: the residual width can only be cut if layer norm has a rule."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm1 = nn.Linear(4, 8), nn.LayerNorm(8)
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 8)
        self.norm2, self.head = nn.LayerNorm(8, elementwise_affine=False), nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.fc2(F.gelu(self.fc1(self.norm1(x))))
        return self.head(self.norm2(x).mean(1))


@case(inputs=sequences())
class RootMeanSquareNormalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm1 = nn.Linear(4, 8), nn.RMSNorm(8, eps=1e-2)
        self.fc1, self.fc2, self.norm2 = nn.Linear(8, 10), nn.Linear(10, 8), nn.RMSNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.fc2(F.silu(self.fc1(self.norm1(x))))
        return self.head(self.norm2(x).mean(1))


@case(inputs=sequences())
class HandWrittenNorm(nn.Module):
    """RMS norm as language models write it: a mean of squares over units, which is that of the open ones."""

    def __init__(self):
        super().__init__()
        self.embed, self.scale = nn.Linear(4, 6), nn.Parameter(torch.ones(6))
        self.fc1, self.fc2, self.head = nn.Linear(6, 10), nn.Linear(10, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.embed(x)
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.scale
        return self.head((x + self.fc2(F.silu(self.fc1(y)))).mean(1))


@case()
class ConvNeXtBlock(nn.Module):
    """Depthwise, channels last, layer norm, two linear layers, layer scale, and back."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 6, 2, 2), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(6), nn.Linear(6, 10), nn.Linear(10, 6)
        self.scale, self.head = nn.Parameter(torch.ones(6, 1, 1)), nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.fc2(F.gelu(self.fc1(self.norm(y)))).permute(0, 3, 1, 2)
        return self.head(pooled(x + self.scale * y))


@case()
class GlobalResponse(nn.Module):
    """Global response normalisation divides by a mean over channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.fc1, self.fc2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 9, 1), nn.Conv2d(9, 6, 1)
        self.gamma, self.beta = nn.Parameter(torch.ones(1, 9, 1, 1)), nn.Parameter(torch.ones(1, 9, 1, 1))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        y = F.gelu(self.fc1(x))
        size = y.norm(dim=(2, 3), keepdim=True)
        y = self.gamma * (y * (size / (size.mean(1, keepdim=True) + 1e-6))) + self.beta + y
        return self.head(pooled(x + self.fc2(y)))


class StandardisedConv2d(nn.Conv2d):
    def forward(self, x):
        spread, centre = torch.std_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - centre) / (spread + 1e-5), self.bias, padding=1)


@case(prunable=0.6, freezes=True, in_place=False)
class WeightStandardised(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = StandardisedConv2d(3, 6, 3), StandardisedConv2d(6, 5, 3)
        self.fc, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.fc(pooled(self.conv2(self.conv1(x).relu()).sigmoid())).cos())


@case(prunable=0.5, freezes=True, in_place=False)
class WeightNormalised(nn.Module):
    """The length of a filter is taken over its inputs, which therefore stay."""

    def __init__(self):
        super().__init__()
        self.conv1 = parametrizations.weight_norm(nn.Conv2d(3, 6, 3))
        self.conv2 = parametrizations.weight_norm(nn.Conv2d(6, 5, 3))
        self.fc, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.fc(pooled(self.conv2(self.conv1(x).relu()).sigmoid())).cos())


# Parameters that are not weights


@case()
class SlopePerChannel(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.act1, self.conv2 = nn.Conv2d(3, 6, 3), nn.PReLU(6), nn.Conv2d(6, 5, 3)
        self.act2, self.head = nn.PReLU(), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(pooled(self.act2(self.conv2(self.act1(self.conv1(x))))))


@case()
class LearnedScales(nn.Module):
    """A layer scale, a scale in a buffer, and a scalar temperature on the logits."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.gamma = conv_bn(3, 6), conv_bn(6, 6), nn.Parameter(torch.ones(6, 1, 1))
        self.register_buffer("fixed", torch.linspace(0.5, 1.5, 6).view(1, 6, 1, 1))
        self.head, self.temperature = nn.Linear(6, 3), nn.Parameter(torch.zeros(()))

    def forward(self, x):
        x = self.stem(x) * self.fixed
        return self.head(pooled((x + self.gamma * self.conv(x).relu()).sigmoid())) * self.temperature.exp()


@case(prunable=0.4, in_place=False)
class ConstantPerChannel(nn.Module):
    """A tensor made in ``forward`` has a literal width."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.Linear(5, 3)

    def forward(self, x):
        x = self.conv1(x).relu() + torch.arange(6, dtype=x.dtype, device=x.device).view(1, 6, 1, 1) / 6
        return self.head(pooled(self.conv2(x).sigmoid()))


@case()
class BlurPool(nn.Module):
    """A depthwise convolution with a fixed kernel, as wide as what comes in."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 1), nn.Linear(5, 3)
        self.register_buffer("kernel", torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2) / 10)

    def forward(self, x):
        x = self.conv1(x).sigmoid()
        x = F.conv2d(x, self.kernel.expand(x.shape[1], -1, -1, -1), stride=2, groups=x.shape[1])
        return self.head(pooled(F.silu(self.conv2(x))))


@case()
class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.drop1 = nn.Conv2d(3, 6, 3), nn.Dropout2d(0.4)
        self.fc, self.drop2, self.head = nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.drop2(self.fc(pooled(self.drop1(self.conv(x).relu()))).sigmoid()))


@case()
class ArithmeticInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.act = conv_bn(3, 6), conv_bn(6, 6), nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.act(self.stem(x))
        y = self.conv(x)
        y += x
        y.mul_(0.5).sigmoid_()
        return self.head(pooled(y))


@case(prunable=0.4, in_place=False)
class WrittenSlice(nn.Module):
    """Some channels are changed through a view: reading the graph without aliasing misses it."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.Linear(5, 3)

    def forward(self, x):
        x = self.conv1(x)
        x[:, :2] += 0.5
        x[:, 3:].sigmoid_()
        return self.head(pooled(self.conv2(x).sigmoid()))


@case()
class UnusedLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.Linear(5, 3)
        self.spare = nn.BatchNorm2d(6)

    def forward(self, x):
        return self.head(pooled(self.conv2(self.conv1(x).relu()).sigmoid()))


# Other dimensions, and other ends of a network


@case(inputs=lambda rows: (torch.randn(rows, 3, 9),))
class OneDimension(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn, self.conv2 = nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), nn.Conv1d(6, 5, 3)
        self.head = nn.Linear(5 * 2, 3)

    def forward(self, x):
        return self.head(F.max_pool1d(self.conv2(self.bn(self.conv1(x)).relu()), 2).flatten(1))


@case(inputs=lambda rows: (torch.randn(rows, 2, 4, 5, 5),))
class ThreeDimensions(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn, self.conv2 = nn.Conv3d(2, 6, 2), nn.BatchNorm3d(6), nn.Conv3d(6, 5, 2)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(
            F.adaptive_avg_pool3d(self.conv2(self.bn(self.conv1(x)).relu()).sigmoid(), 1).flatten(1)
        )


@case()
class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 6, 3, stride=2), nn.ConvTranspose2d(6, 5, 3, stride=2)
        self.bn, self.head = nn.BatchNorm2d(5), nn.ConvTranspose2d(5, 2, 2)

    def forward(self, x):
        return self.head(self.bn(self.up(self.down(x).sigmoid())).relu())


@case(inputs=lambda rows: (torch.randn(rows, 3, 6, 6), torch.randn(rows, 4)))
class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = conv_bn(3, 6), nn.Linear(4, 6)
        self.both, self.head = nn.Linear(12, 5), nn.Linear(5, 3)

    def forward(self, image, facts):
        image, facts = self.conv(image).relu(), self.fc(facts).sigmoid()
        return self.head(self.both(torch.cat([pooled(image * facts[:, :, None, None]), facts], 1)).cos())


@case()
class ScaledLogits(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 5), nn.Linear(5, 3)
        self.head_scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return F.log_softmax(self.head(self.fc(pooled(self.conv(x).relu())).relu()) * self.head_scale, -1)


@case(prunable=0.4, freezes=True, in_place=False)
class ReturnsFeatures(nn.Module):
    """What is returned can never be cut; it is read by a layer as well."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.Linear(5, 3)

    def forward(self, x):
        features = pooled(self.conv2(self.conv1(x).relu()).sigmoid())
        return self.head(features), features


# Sequences: embeddings and attention


@case(inputs=tokens())
class TextClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.fc, self.head = nn.Embedding(11, 6, padding_idx=0), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.fc(self.embed(x).mean(1)).sigmoid())


@case(inputs=tokens())
class TiedEmbedding(nn.Module):
    """The embedding is also the output layer; its words stay, its width may go."""

    def __init__(self):
        super().__init__()
        self.embed, self.fc1, self.fc2 = nn.Embedding(11, 6), nn.Linear(6, 9), nn.Linear(9, 6)
        self.head = nn.Linear(6, 11)
        self.head.weight = self.embed.weight

    def forward(self, x):
        x = self.embed(x)
        return self.head(x + self.fc2(F.gelu(self.fc1(x))))


@case(inputs=tokens())
class PositionalEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Embedding(11, 6), nn.Parameter(torch.zeros(1, 5, 6))
        self.token, self.fc = nn.Parameter(torch.zeros(1, 1, 6)), nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x) + self.position[:, : x.shape[1]]
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = self.fc(x).sigmoid()
        return self.head(x[:, 0] + x.mean(1))


class Attention(nn.Module):
    """Self-attention by hand: one projection for all, heads told apart by ``arrange``."""

    def __init__(self, width, heads, head_dim, infer):
        super().__init__()
        self.heads, self.head_dim, self.infer = heads, head_dim, infer
        self.qkv, self.out = nn.Linear(width, 3 * heads * head_dim), nn.Linear(heads * head_dim, width)

    def forward(self, x):
        rows, length, _ = x.shape
        heads = -1 if self.infer else self.heads
        q, k, v = self.qkv(x).view(rows, length, 3, heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1) * self.head_dim**-0.5, dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(rows, length, -1))


class VisionTransformer(nn.Module):
    def __init__(self, infer):
        super().__init__()
        self.patches, self.position = nn.Conv2d(3, 8, 2, 2), nn.Parameter(torch.zeros(1, 9, 8))
        self.norm1, self.attention = nn.LayerNorm(8), Attention(8, 4, 3, infer)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(8), nn.Linear(8, 10), nn.Linear(10, 8)
        self.norm3, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        x = x + self.attention(self.norm1(x))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(self.norm3(x).mean(1))


@case()
def vision_transformer_heads_from_shape():
    return VisionTransformer(infer=True)


@case(in_place=False)
def vision_transformer_heads_in_attribute():
    return VisionTransformer(infer=False)


@case(in_place=False, inputs=sequences())
class EinsumAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads, self.query, self.key = 4, nn.Linear(4, 12), nn.Linear(4, 12)
        self.value, self.out, self.head = nn.Linear(4, 8), nn.Linear(8, 5), nn.Linear(5, 3)

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)) for p in (self.query, self.key, self.value))
        weights = torch.einsum("bthd,bshd->bhts", q, k).div(math.sqrt(3)).softmax(-1)
        x = torch.einsum("bhts,bshd->bthd", weights, v).flatten(2)
        return self.head(self.out(x).sigmoid().mean(1))


@case(in_place=False, inputs=sequences())
class FusedAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.pair = nn.Linear(4, 12, bias=False), nn.Linear(4, 24)
        self.out, self.head = nn.Linear(12, 5), nn.Linear(5, 3)

    def forward(self, x):
        rows, length, _ = x.shape
        q = self.query(x).view(rows, length, 4, 3).transpose(1, 2)
        k, v = self.pair(x).reshape(rows, length, 2, 4, 3).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(self.out(x.transpose(1, 2).reshape(rows, length, 12)).sigmoid().mean(1))


@case(in_place=False, inputs=sequences())
class ModuleAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attention = nn.Linear(4, 8), nn.MultiheadAttention(8, 4, batch_first=True)
        self.fc, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.fc(x).sigmoid().mean(1))


@case(in_place=False, inputs=sequences())
class EncoderLayers(nn.Module):
    """PyTorch's own transformer, which takes another path in eval mode without gradients."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, activation="gelu", batch_first=True)
        self.embed, self.encoder = (
            nn.Linear(4, 8),
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)).mean(1))


@case(in_place=False, inputs=images(3, 8))
class WindowAttention(nn.Module):
    """Windows of a map that is rolled in space, and a table of relative positions with a column per head."""

    def __init__(self):
        super().__init__()
        self.heads, self.patches = 2, nn.Conv2d(3, 6, 2, 2)
        self.norm, self.qkv, self.out = nn.LayerNorm(6), nn.Linear(6, 3 * 8), nn.Linear(8, 6)
        self.table, self.head = nn.Parameter(torch.zeros(9, 2)), nn.Linear(6, 3)
        offsets = torch.cartesian_prod(torch.arange(2), torch.arange(2))
        offsets = offsets[:, None] - offsets[None] + 1
        self.register_buffer("offsets", offsets[..., 0] * 3 + offsets[..., 1])

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)  # (rows, 4, 4, 6)
        rows, height, width, channels = x.shape
        y = torch.roll(self.norm(x), (-1, -1), (1, 2)).view(rows, height // 2, 2, width // 2, 2, channels)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, channels)  # (rows × windows, 4, 6)
        q, k, v = self.qkv(y).reshape(len(y), 4, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / 2 + self.table[self.offsets.view(-1)].view(4, 4, -1).permute(
            2, 0, 1
        )
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        y = y.view(rows, height // 2, width // 2, 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        x = x + torch.roll(y.reshape(rows, height, width, channels), (1, 1), (1, 2))
        return self.head(x.sigmoid().mean((1, 2)))


@case(inputs=sequences())
class Recurrent(nn.Module):
    """A hidden unit is read by the recurrence itself and by what comes after it."""

    def __init__(self):
        super().__init__()
        self.lstm, self.fc, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.fc(self.lstm(x)[0][:, -1]).sigmoid())


@case(inputs=sequences())
class RecurrentBothWays(nn.Module):
    """Two layers and two directions: a hidden unit is the same index in all four."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 5)
        self.gru = nn.GRU(5, 6, num_layers=2, bidirectional=True)
        self.fc, self.head = nn.Linear(12, 5), nn.Linear(5, 3)

    def forward(self, x):
        x, _ = self.gru(self.embed(x).sigmoid().transpose(0, 1))
        return self.head(self.fc(x.mean(0)).sigmoid())


@case(inputs=sequences())
class RecurrentState(nn.Module):
    """The last state is read, not the outputs; and there are no biases."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(4, 6, batch_first=True, bias=False)
        self.fc, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.fc(self.rnn(x)[1][0]).sigmoid())


@case(inputs=sequences())
class ProjectedRecurrence(nn.Module):
    """Projections inside a recurrence: what it shows, and what it keeps to itself, are units of two kinds."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 6, proj_size=3, batch_first=True)
        self.fc, self.fc2, self.head = nn.Linear(3, 16), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.fc2(self.fc(self.lstm(x)[0][:, -1]).sigmoid()).cos())


@case(in_place=False, inputs=sequences())
class EinsumByParameters(nn.Module):
    """Projections to heads and back as language models in other frameworks write them."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.query_weight, self.key_weight = (nn.Parameter(torch.zeros(4, 6, 3)) for _ in range(2))
        self.value_weight, self.out_weight = (
            nn.Parameter(torch.zeros(6, 4, 2)),
            nn.Parameter(torch.zeros(4, 2, 6)),
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.embed(x)
        q = torch.einsum("... l d, h d k -> ... h l k", x, self.query_weight)
        k = torch.einsum("...ld,hdk->...hlk", x, self.key_weight)
        v = torch.einsum("ble,ehv->bhlv", x, self.value_weight)
        y = torch.einsum("bhlm,bhmv->bhlv", torch.einsum("bhlk,bhmk->bhlm", q, k).softmax(-1), v)
        x = x + torch.einsum("bhlv,hvd->bld", y, self.out_weight)
        return self.head(torch.einsum("bld->bd", x.sigmoid()[:, :1]) + x.mean(1))


class GroupNorms(nn.Module):
    def __init__(self, groups, affine=True):
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(3, 8, 3), nn.GroupNorm(groups, 8, affine=affine)
        self.conv2, self.head = nn.Conv2d(8, 5, 3), nn.Linear(5, 3)

    def forward(self, x):
        x = self.conv1(x)
        return self.head(pooled(self.conv2(self.norm(x).relu() + x).sigmoid()))


@case()
def group_norm_of_one_group():
    return GroupNorms(1)


@case()
def group_norm_of_four_groups():
    return GroupNorms(4)


@case(in_place=False)
def group_norm_without_parameters():
    return GroupNorms(4, affine=False)


class TransposedInGroups(nn.Module):
    def __init__(self, groups, width):
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, width, 3, groups=groups)
        self.bn, self.head = nn.BatchNorm2d(width), nn.Linear(width, 3)

    def forward(self, x):
        return self.head(pooled(self.bn(self.up(self.down(x).sigmoid())).relu()))


@case()
def transposed_in_two_groups():
    return TransposedInGroups(2, 6)


@case(prunable=0.85)  # its weight has one row, which stays
def transposed_depthwise():
    return TransposedInGroups(8, 8)


@case(inputs=sequences())
class Mixer(nn.Module):
    """Layers over positions, and over channels: channels pass through the first kind."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.norm2 = nn.Linear(4, 8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.head_positions = nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 5))
        self.channels = nn.Sequential(nn.Linear(8, 10), nn.GELU(), nn.Linear(10, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.head_positions(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channels(self.norm2(x))).mean(1))


@case(inputs=vectors(7))
class StatisticsOverUnits(nn.Module):
    """Mean, spread, maximum, minimum, log-sum-exp and length over units, beside a layer that reads them."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.head = nn.Linear(7, 6), nn.Linear(6, 5), nn.Linear(5 + 8, 3)

    def forward(self, x):
        x = self.fc1(x)
        y = self.fc2(x).log_softmax(-1).cos()
        v, m = torch.var_mean(x, -1, keepdim=True)
        numbers = [m, v, x.std(-1, keepdim=True), x.max(-1, keepdim=True)[0], x.amin(-1, keepdim=True)]
        numbers += [x.logsumexp(-1, keepdim=True), x.norm(dim=-1, keepdim=True), x.abs().mean(-1)[:, None]]
        return self.head(torch.cat([y, *numbers], 1))


class GainedConv2d(nn.Conv2d):
    """A kernel that is computed from parameters, number by number."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.gain = nn.Parameter(torch.ones(self.out_channels))

    def forward(self, x):
        return F.conv2d(x, torch.tanh(self.weight) * self.gain.view(-1, 1, 1, 1) * 2, self.bias)


@case()
class ComputedKernels(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = GainedConv2d(3, 6, 3), GainedConv2d(6, 5, 3), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(pooled(self.conv2(self.conv1(x).relu()).sigmoid()))


@case()
class RepeatedKernel(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 1), nn.Linear(5, 3)
        self.register_buffer("kernel", torch.tensor([[1.0, 2.0], [3.0, 4.0]]) / 10)

    def forward(self, x):
        x = self.conv1(x).sigmoid()
        x = F.conv2d(x, self.kernel[None, None].repeat(x.shape[1], 1, 1, 1), groups=x.shape[1])
        return self.head(pooled(F.silu(self.conv2(x))))
