"""Forms that inputs and outputs of drawn networks come in: one tensor, several, dicts within a dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tests.structure.graph.checks import as_found, flat
from tests.structure.graph.programs import Interpreted

FORMS = ("tensor", "two", "nested")


class Formed(nn.Module):
    """A network whose inputs are scaled and masked by others that it is given, in one of ``FORMS``."""

    def __init__(self, network: Interpreted, outputs: str) -> None:
        super().__init__()
        self.network, self.outputs = network, outputs

    def forward(self, image, scale=None, more=None):
        scale = more["scale"] if more else scale
        x = image if scale is None else image * scale
        if more:
            x = x.masked_fill(~more["there"], 0.0)
        y = self.network(x)
        if self.outputs == "tensor":
            return y
        return (
            (y, y.sigmoid()) if self.outputs == "two" else {"logits": y, "more": {"mean": y.mean(-1, True)}}
        )


def inputs(form: str, rows: int, height: int, width: int, seed: int) -> Any:
    """A batch in that form, of float64."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(rows, 3, height, width, generator=generator, dtype=torch.float64)
    scale = 1 + torch.rand(rows, 3, 1, 1, generator=generator, dtype=torch.float64)
    there = torch.rand(rows, 1, height, width, generator=generator) < 0.8
    if form == "tensor":
        return image
    return (image, scale) if form == "two" else {"image": image, "more": {"scale": scale, "there": there}}


def run(module: nn.Module, batch: Any, training: bool, gates: Mapping[str, Tensor] | None = None) -> Tensor:
    """All numbers that a module returns for a batch of any form; it is as it was."""
    named, more = isinstance(batch, dict), {} if gates is None else {"gates": gates}
    with as_found(module), torch.no_grad():
        module.train(training)
        if named:
            return flat(module(**batch, **more))
        return flat(module(*(batch if isinstance(batch, tuple) else (batch,)), **more))
