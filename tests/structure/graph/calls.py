"""Networks that are called with more than one tensor, and return more than one."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Output:
    """As a model of one's own returns it."""

    logits: Tensor
    loss: Tensor | None = None


@dataclass
class LikeModelOutput(OrderedDict):
    """A dict and a dataclass at once, without what is None, as transformers has it."""

    loss: Tensor | None = None
    logits: Tensor | None = None

    def __post_init__(self):
        for name in ("loss", "logits"):
            if getattr(self, name) is not None:
                self[name] = getattr(self, name)


class Classifier(nn.Module):
    """Tokens with a mask, and a dict of more; integers, booleans and real numbers; a loss of its own."""

    def __init__(self, kind=Output):
        super().__init__()
        self.kind = kind
        self.table, self.wide, self.narrow = nn.Embedding(11, 8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids, mask=None, more=None, labels=None, scale=True):
        x = self.table(ids)
        x = x + self.narrow(self.wide(x).relu())
        if more is not None:
            x = x * more["by"][0].to(x.dtype)[:, None, None]
        there = torch.ones_like(ids) if mask is None else mask
        there = there.to(x.dtype)[..., None]
        logits = self.head((x * there).sum(1) / (there.sum(1) if scale else 1.0))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        if self.kind is tuple:
            return (logits, x) if loss is None else (loss, logits, x)
        if self.kind is dict:
            return {"logits": logits, "states": (x, None)}
        return self.kind(logits=logits, loss=loss)


class Siamese(nn.Module):
    """Two images through one body."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 7)), nn.Linear(7, 2)

    def forward(self, a, b):
        return self.head((self.body(a) - self.body(b)).abs())


def example(rows=4, seed=0):
    """Arguments by name, nested."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, 5, generator=generator) < 0.7
    mask[:, 0] = True
    return {
        "ids": torch.randint(11, (rows, 5), generator=generator),
        "mask": mask,
        "more": {"by": (torch.rand(rows, generator=generator), None)},
        "scale": True,
    }
