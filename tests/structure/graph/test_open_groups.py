"""Groups without gates are open: the same number as with gates of one, and nothing is looked up for them."""

import pytest
import torch
from torch import Tensor, nn

from bayesprune.structure.graph import GraphNetwork, analyse
from bayesprune.structure.graph.gating import pack


class Joined(nn.Module):
    """Two layers side by side, normalised together, read by a third."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 4), nn.Linear(5, 6)
        self.norm, self.out = nn.LayerNorm(10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(torch.cat([self.left(x), self.right(x)], 1)))


def row() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.ReLU(),
        nn.Linear(5, 2),
    )


CASES = {
    "row": (row, (5,)),
    "joined under a norm": (Joined, (5,)),
    "convolutions": (convolutions, (2, 6, 6)),
}


def network(name: str) -> tuple[GraphNetwork, Tensor]:
    torch.manual_seed(0)
    make, shape = CASES[name]
    x = torch.randn(8, *shape, dtype=torch.float64)
    return analyse(make().double(), x[:2], inputs=True).gated, x


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("cut", [False, True])
def test_who_is_not_named_is_open(name, cut):
    graph, x = network(name)
    if cut:
        graph.cut_({g.name: torch.arange(g.size) > 0 for g in graph.groups if g.size > 2})
    left = {g.name: int(graph.alive[a:b].sum()) for g, a, b in spans(graph)}
    for group in graph.groups:
        one = {group.name: torch.rand(8, left[group.name], dtype=torch.float64)}
        ones = {n: torch.ones(8, k, dtype=torch.float64) for n, k in left.items()}
        torch.testing.assert_close(graph(x, one), graph(x, ones | one), rtol=0, atol=1e-12)


def spans(graph: GraphNetwork):
    start = 0
    for group in graph.groups:
        yield group, start, start + group.size
        start += group.size


def test_nothing_is_looked_up_for_them(monkeypatch):
    graph, x = network("row")
    graph.cut_({g.name: torch.arange(g.size) > 0 for g in graph.groups})
    plain = graph(x)
    first = graph.groups[0]
    gates = {first.name: torch.ones(8, first.size - 1, dtype=torch.float64)}

    def refused(*args):
        raise AssertionError("gates were laid side by side")

    monkeypatch.setattr(pack, "pack_gates", refused)
    assert torch.equal(graph(x, gates), plain)
