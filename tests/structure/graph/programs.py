"""Random networks: short programs that Hypothesis draws and one module interprets.

A program is a seed and a list of steps; a step is an operation, the values that it reads, and two whole
numbers that settle the rest. Every number is taken modulo what is possible, so that any list of steps is a
network, a printed program is all that is needed to build it again, and a failing one shrinks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.structure.graph.networks import Attention, randomise_

SIZE = 4
"""Height and width of every map; operations that change them change them back."""

WIDEST = 14
"""Wider maps are projected before they are joined to others."""


@dataclass(frozen=True)
class Step:
    """One operation; ``a`` and ``b`` choose its width, its groups, its kind."""

    op: str
    first: int
    second: int
    a: int
    b: int


@dataclass(frozen=True)
class Program:
    """A network, entirely."""

    seed: int
    steps: tuple[Step, ...]
    flatten: bool


Built = tuple[nn.Module, list[int]]
OPERATIONS: dict[str, Callable[[int, int, int, int], Built]] = {}
"""Name → (channels of the first value, of the second, a, b) → (module, channels of its outputs)."""


def operation(build):
    OPERATIONS[build.__name__] = build
    return build


class Apply(nn.Module):
    """A function of the values with some layers: ``function(layers, first, second)``."""

    def __init__(self, function, *layers):
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, first, second):
        return self.function(self.layers, first, second)


def divisor(number: int, choice: int) -> int:
    options = [d for d in range(1, number + 1) if number % d == 0]
    return options[choice % len(options)]


def proper(number: int, choice: int) -> int:
    """A divisor of the number other than one, where there is another."""
    return divisor(number, 1 + choice % max(1, sum(number % d == 0 for d in range(2, number + 1))))


def layer(module: nn.Module, width: int) -> Built:
    return Apply(lambda layers, x, _: layers[0](x), module), [width]


def move(function: Callable[[Tensor], Tensor], width: int) -> Built:
    return Apply(lambda layers, x, _: function(x)), [width]


def fitted(source: int, target: int) -> nn.Module:
    """What makes a map as wide as another: nothing, or a projection."""
    return nn.Identity() if source == target else nn.Conv2d(source, target, 1)


# Branches


@operation
def convolution(c, _, a, b):
    width, kernel = 2 + a % 8, 1 + 2 * (b % 2)
    return layer(nn.Conv2d(c, width, kernel, padding=kernel // 2, bias=bool(a % 3)), width)


@operation
def grouped(c, _, a, b):
    groups = proper(c, b)
    width = groups * (1 + a % 3)
    return layer(nn.Conv2d(c, width, 3, padding=1, groups=groups), width)


@operation
def depthwise(c, _, a, b):
    return layer(nn.Conv2d(c, c, 3, padding=1, groups=c, bias=bool(b % 2)), c)


@operation
def transposed(c, _, a, b):
    return layer(nn.ConvTranspose2d(c, 2 + a % 5, 3, padding=1), 2 + a % 5)


@operation
def applied_twice(c, _, a, b):
    return Apply(lambda layers, x, _: layers[0](layers[0](x).tanh()), nn.Conv2d(c, c, 1)), [c]


@operation
def add(c, d, a, b):
    return Apply(lambda layers, x, y: x + layers[0](y), fitted(d, c)), [c]


@operation
def multiply(c, d, a, b):
    return Apply(lambda layers, x, y: x * layers[0](y).sigmoid(), fitted(d, c)), [c]


@operation
def concatenate(c, d, a, b):
    left, right = min(c, WIDEST // 2), min(d, WIDEST // 2)
    module = Apply(
        lambda layers, x, y: torch.cat([layers[0](x), layers[1](y)], 1), fitted(c, left), fitted(d, right)
    )
    return module, [left + right]


@operation
def excite(c, _, a, b):
    def function(layers, x, _):
        return x * layers[1](layers[0](x.mean((2, 3), keepdim=True)).sigmoid()).sigmoid()

    return Apply(function, nn.Conv2d(c, 2 + a % 3, 1), nn.Conv2d(2 + a % 3, c, 1)), [c]


# Channels that move


@operation
def split(c, _, a, b):
    if c < 2:
        return move(torch.tanh, c)
    at = 1 + a % (c - 1)
    parts = [
        lambda x: torch.split(x, [at, c - at], 1),
        lambda x: (x[:, :at], x[:, at:]),
        lambda x: (x.narrow(1, 0, at), x.narrow(1, at, c - at)),
    ]
    return Apply(lambda layers, x, _: parts[b % 3](x)), [at, c - at]


@operation
def every_other(c, _, a, b):
    if c < 2:
        return move(torch.cos, c)
    return Apply(lambda layers, x, _: (x[:, ::2], x[:, 1::2])), [(c + 1) // 2, c // 2]


@operation
def shuffle(c, _, a, b):
    groups = proper(c, a)
    if b % 2:
        return layer(nn.ChannelShuffle(groups), c)
    return move(lambda x: x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2), c)


@operation
def roll(c, _, a, b):
    return move(lambda x: x.roll(a, 1), c)


@operation
def flip(c, _, a, b):
    return move(lambda x: x.flip(1), c)


@operation
def reorder(c, _, a, b):
    order = torch.randperm(c, generator=torch.Generator().manual_seed(a)).tolist()
    return move(lambda x: x[:, order], c)


@operation
def pad(c, _, a, b):
    before, after = a % 2, b % 2
    return move(lambda x: F.pad(x, (0, 0, 0, 0, before, after)), c + before + after)


@operation
def pixel_shuffle(c, _, a, b):
    if c % 4:
        return move(lambda x: F.avg_pool2d(x, 3, 1, 1), c)
    return move(lambda x: F.avg_pool2d(F.pixel_shuffle(x, 2), 2), c // 4)


@operation
def gated_by_half(c, _, a, b):
    if c % 2:
        return move(F.silu, c)
    if b % 2:
        return move(lambda x: F.glu(x, 1), c // 2)
    return move(lambda x: x[:, : c // 2] * x[:, c // 2 :].sigmoid(), c // 2)


# Normalisation, activation, pooling


@operation
def batch_norm(c, _, a, b):
    return layer(nn.BatchNorm2d(c, affine=bool(a % 4), track_running_stats=bool(b % 4)), c)


@operation
def instance_norm(c, _, a, b):
    return layer(nn.InstanceNorm2d(c, affine=bool(a % 2)), c)


@operation
def group_norm(c, _, a, b):
    return layer(nn.GroupNorm(divisor(c, a), c), c)


@operation
def layer_norm(c, _, a, b):
    norm = nn.LayerNorm(c, elementwise_affine=bool(b % 3)) if a % 2 else nn.RMSNorm(c, eps=1e-3)
    return Apply(lambda layers, x, _: layers[0](x.movedim(1, -1)).movedim(-1, 1), norm), [c]


@operation
def activation(c, _, a, b):
    kinds = [torch.sigmoid, torch.cos, F.silu, F.leaky_relu, F.softplus, torch.tanh, F.relu]
    return move(kinds[a % len(kinds)], c)


@operation
def slope(c, _, a, b):
    return layer(nn.PReLU(c if a % 3 else 1), c)


@operation
def pool(c, _, a, b):
    kinds = [lambda x: F.max_pool2d(x, 3, 1, 1), lambda x: F.avg_pool2d(x, 3, 1, 1)]
    return move(kinds[a % 2], c)


@operation
def softmax(c, _, a, b):
    return move(lambda x: x.softmax(1 if a % 4 == 0 else 2), c)


@operation
def attention(c, _, a, b):
    def function(layers, x, _):
        return layers[0](x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (SIZE, SIZE))

    return Apply(function, Attention(c, 1 + a % 3, 2, infer=bool(b % 2))), [c]


class Interpreted(nn.Module):
    """The network that a program describes: (rows, 3, SIZE, SIZE) → (rows, 3).

    Whatever no step reads is read by the end: pooled or flattened, joined, and two linear layers.
    """

    def __init__(self, program: Program):
        super().__init__()
        self.program = program
        self.stem, widths = nn.Conv2d(3, 6, 3, padding=1), [6]
        self.reads, steps = [], []
        for step in program.steps:
            first, second = step.first % len(widths), step.second % len(widths)
            module, outputs = OPERATIONS[step.op](widths[first], widths[second], step.a, step.b)
            self.reads.append((first, second))
            steps.append(module)
            widths += outputs
        self.steps = nn.ModuleList(steps)
        self.ends = self._unread(len(widths))
        features = sum(widths[i] for i in self.ends) * (SIZE * SIZE if program.flatten else 1)
        self.hidden, self.head = nn.Linear(features, 7), nn.Linear(7, 3)

    def _unread(self, count: int) -> list[int]:
        binary = {"add", "multiply", "concatenate"}
        read = set()
        for step, (first, second) in zip(self.program.steps, self.reads, strict=True):
            read |= {first, second} if step.op in binary else {first}
        return [i for i in range(count) if i not in read]

    def forward(self, x):
        values = [self.stem(x)]
        for module, (first, second) in zip(self.steps, self.reads, strict=True):
            outputs = module(values[first], values[second])
            values += outputs if isinstance(outputs, tuple) else [outputs]
        ends = [
            v.flatten(1) if self.program.flatten else v.mean((2, 3)) for v in (values[i] for i in self.ends)
        ]
        return self.head(self.hidden(torch.cat(ends, 1)).sigmoid())


def network_of(program: Program) -> Interpreted:
    """The program's network, in float64 and train mode, with random parameters and statistics."""
    return randomise_(Interpreted(program).double(), program.seed).train()


NUMBERS = st.integers(0, 11)

programs = st.builds(
    Program,
    seed=st.integers(0, 2**16),
    steps=st.lists(
        st.builds(Step, st.sampled_from(sorted(OPERATIONS)), NUMBERS, NUMBERS, NUMBERS, NUMBERS),
        min_size=3,
        max_size=9,
    ).map(tuple),
    flatten=st.booleans(),
)
"""Programs of three to nine operations."""
