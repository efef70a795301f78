"""The networks that every rule has to prune, small, with rows and targets; and their posteriors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import bayesprune as bp
from tests.structure.graph.networks import CASES, randomise_

ROWS = 40


@dataclass(frozen=True)
class Example:
    """A network of three classes and rows for it."""

    network: nn.Module
    x: Any
    y: Tensor

    def few(self) -> Any:
        """Two rows."""
        return tree_map(lambda x: x[:2], self.x)

    @property
    def likelihood(self) -> bp.Categorical:
        return bp.Categorical(rows=1000)


def mlp() -> Example:
    layers = OrderedDict(
        fc1=nn.Linear(9, 14), relu1=nn.ReLU(), fc2=nn.Linear(14, 8), relu2=nn.ReLU(), head=nn.Linear(8, 3)
    )
    return _example(nn.Sequential(layers), torch.randn(ROWS, 9))


def lenet5() -> Example:
    layers = OrderedDict(
        conv1=nn.Conv2d(1, 4, 5), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2), conv2=nn.Conv2d(4, 6, 3),
        relu2=nn.ReLU(), pool2=nn.MaxPool2d(2), flatten=nn.Flatten(), fc1=nn.Linear(24, 10),
        relu3=nn.ReLU(), head=nn.Linear(10, 3),
    )  # fmt: skip
    return _example(nn.Sequential(layers), torch.randn(ROWS, 1, 16, 16))


def residual() -> Example:
    return _example(CASES["ResidualProjection"].build(), torch.randn(ROWS, 3, 6, 6))


def attention() -> Example:
    case = CASES["vision_transformer_heads_from_shape"]
    return _example(case.build(), case.inputs(ROWS)[0])


def _example(network: nn.Module, x: Tensor) -> Example:
    return Example(randomise_(network.double(), 1).eval(), x.double(), torch.arange(len(x)) % 3)


EXAMPLES: dict[str, Callable[[], Example]] = {f.__name__: f for f in (mlp, lenet5, residual, attention)}


def example_of(name: str) -> Example:
    """The network of that name, the same at every call."""
    torch.manual_seed(0)
    return EXAMPLES[name]()


def posterior_of(
    example: Example, weights: str = "delta", price: float = 5.0, inputs: bool | None = None
) -> bp.GatedModel:
    """A gated model whose log-odds are random, some on either side of one half."""
    gated = bp.gate(
        example.network,
        example.few(),
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(price=price)),
        likelihood=example.likelihood,
        weights=bp.priors.NormalWeights(posterior=weights, initial_scale=0.3),
        inputs=inputs,
    )
    generator = torch.Generator().manual_seed(5)
    gated.log_odds.data = 2 * torch.randn(len(gated.log_odds), generator=generator).to(gated.log_odds) + 1
    return gated.eval()
