"""Sizes that a network does not read are not tried: it is seen which ones it reads, in whatever way."""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.structure.graph.own.noted import _Search
from bayesprune.structure.graph.own.reading import reading


class Kinds(nn.Module):
    """Numbers that are read in every way, and some that are not."""

    def __init__(self):
        super().__init__()
        self.plain, self.by_name, self.behind, self.unread = 3, 3, 3, 3
        self.layer = nn.Linear(3, 3)

    @property
    def through(self):
        return self.behind

    def forward(self, x):
        return self.layer(x).view(-1, self.plain) * getattr(self, "by_name") * self.through  # noqa: B009


class ByDictionary(Kinds):
    def forward(self, x):
        return super().forward(x) * vars(self)["unread"]


def test_what_is_read_is_seen():
    module = Kinds()
    with reading([module, module.layer]) as read:
        module(torch.ones(2, 3))
    assert type(module) is Kinds
    assert {"plain", "by_name", "behind"} <= read[module] and "unread" not in read[module]
    assert "in_features" not in read[module.layer]


def test_of_a_module_whose_dictionary_is_read_nothing_is_known():
    module = ByDictionary()
    with reading([module]) as read:
        module(torch.ones(2, 3))
    assert module not in read and type(module) is ByDictionary


def test_classes_are_put_back_where_a_forward_fails():
    module = Kinds()
    with pytest.raises(RuntimeError), reading([module]):
        module(torch.ones(2, 4))
    assert type(module) is Kinds


class Unread(nn.Module):
    """Attention of a size that it notes, among numbers that look like sizes and are none."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.head_dim = 4, 3
        self.width, self.depth, self.classes = 12, 4, 3
        self.qkv, self.out = nn.Linear(5, 36), nn.Linear(12, 3)

    def forward(self, x):
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(y.transpose(1, 2).flatten(2)).mean(1)


def test_numbers_that_nobody_reads_are_not_tried(monkeypatch):
    tried, plainly = set(), _Search._tried

    def noting(self, trial, *more):
        tried.update(change.attribute for change in trial)
        return plainly(self, trial, *more)

    monkeypatch.setattr(_Search, "_tried", noting)
    torch.manual_seed(0)
    network, x = Unread().double(), torch.randn(2, 6, 5).double()
    analysis = bp.analyse(network, x)
    alive = {g.name: torch.arange(g.size) != 1 for g in analysis.groups if not g.optional}
    small = analysis.cut(alive)
    assert type(small) is Unread and small.qkv.out_features < 36
    assert tried and tried <= {"num_heads", "head_dim"}
