"""Operations of a pass and what it holds: their models are what a network that is cut for real shows."""

import pytest
import torch
from torch import nn

from bayesprune.rows.call import call_of
from bayesprune.structure import ExpectedCost
from bayesprune.structure.counting import Counter
from bayesprune.structure.graph import analyse
from bayesprune.structure.graph.analysis.passes import held, operations, weighted
from bayesprune.structure.groups import close_over
from bayesprune.structure.memory import memory_of

ROWS = 3


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.b, self.head = nn.Conv2d(6, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.b(torch.relu(self.a(x))))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True), nn.Linear(12, 4)

    def forward(self, x):
        return self.outer(self.inner(x).mean(1))


NETWORKS = {
    "a row": (
        nn.Sequential(
            nn.Conv2d(2, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 12), nn.ReLU(),
            nn.Linear(12, 4),
        ),
        torch.randn(2, 2, 8, 8),
    ),
    "residual": (Residual(), torch.randn(2, 3, 6, 6)),
    "attention": (Attention(), torch.randn(2, 5, 12)),
}  # fmt: skip
both = pytest.mark.parametrize("network, x", NETWORKS.values(), ids=NETWORKS)


def analysed(network, x):
    return analyse(network, x, exclude=("input",) if isinstance(network, nn.Sequential) else ())


def random_cuts(analysis, number=5):
    """Masks of networks cut at random, closed; every group keeps some."""
    generator = torch.Generator().manual_seed(0)
    while number:
        masks = {g.name: torch.rand(g.size, generator=generator) < 0.6 for g in analysis.groups}
        masks = close_over(analysis.slots, masks)
        if all(bool(mask.any()) for mask in masks.values()):
            number -= 1
            yield masks


def expected(terms, analysis, masks):
    return ExpectedCost.of(terms, analysis.groups)({name: mask.double() for name, mask in masks.items()})


@both
def test_operations_of_the_dense_network_are_there_as_a_whole(network, x):
    analysis = analysed(network, x)
    whole = {g.name: torch.ones(g.size, dtype=torch.bool) for g in analysis.groups}
    found = operations(analysis.gated.structure)
    assert len({operation.name for operation in found}) == len(found) > 4
    for operation in found:
        assert float(expected(operation.terms, analysis, whole).macs) == pytest.approx(1, rel=1e-12)


@both
def test_what_is_left_of_products_is_what_a_cut_network_multiplies(network, x):
    """The sum over operations, each weighed by what it multiplies in the dense network."""
    analysis = analysed(network, x)
    graph, dense = analysis.gated.evaluation(), {}

    class Each(torch.fx.Interpreter):
        def run_node(self, node):
            with Counter() as counter:
                result = super().run_node(node)
            dense[node.name] = counter.macs
            return result

    with torch.no_grad():
        Each(graph).run(*analysis.gated.batch(1).tensors)
    for masks in random_cuts(analysis):
        shares = [
            dense[o.name] * float(expected(o.terms, analysis, masks).macs)
            for o in operations(analysis.gated.structure)
        ]
        small = analysis.cut(masks).eval()
        with Counter() as counter, torch.no_grad():
            small(x[:1])
        assert sum(shares) == pytest.approx(counter.macs, rel=1e-9)


def test_what_is_left_of_other_operations_is_their_result():
    network, x = NETWORKS["a row"]
    analysis = analysed(network, x)
    found = {operation.name: operation for operation in operations(analysis.gated.structure)}
    masks = {g.name: torch.arange(g.size) < g.size // 4 for g in analysis.groups}
    masks["4"] = torch.arange(12) < 6
    share = {name: float(expected(o.terms, analysis, masks).macs) for name, o in found.items()}
    assert share["relu_default"] == share["max_pool2d_default"] == pytest.approx(0.25)
    assert share["relu_default_1"] == pytest.approx(0.5)
    assert share["linear_default_1"] == pytest.approx(0.5)


def test_what_is_held_is_what_the_pass_of_a_cut_network_holds():
    """Exact for a row of layers, whose forward holds on to nothing that its graph does not."""
    network, x = NETWORKS["a row"]
    analysis = analyse(network, x, inputs=False)
    gated = analysis.gated
    found = held(gated.structure, gated.evaluation(), gated.batch(ROWS).tensors)
    terms = weighted(found.terms, lambda number: tuple(float(of[number]) for of in found.moments))
    batch = gated.batch(ROWS)
    assert found.fixed == batch.tensors[0].numel() * 4
    for masks in random_cuts(analysis):
        weights = 4 * float(expected(gated.structure.terms, analysis, masks).parameters)
        model = weights + found.fixed + float(expected(terms, analysis, masks).more.max())
        small = analysis.cut(masks).eval()
        assert model == memory_of(small, call_of(small, batch.tensors[0]))


def test_what_a_graph_holds_is_no_more_than_what_its_network_does():
    network, x = NETWORKS["residual"]
    analysis = analysed(network, x)
    gated = analysis.gated
    found = held(gated.structure, gated.evaluation(), gated.batch(ROWS).tensors)
    assert len(found.moments) > 1  # the shortcut is held while the section runs, or the section's own results
    terms = weighted(found.terms, lambda number: tuple(float(of[number]) for of in found.moments))
    for masks in random_cuts(analysis):
        weights = 4 * float(expected(gated.structure.terms, analysis, masks).parameters)
        model = weights + found.fixed + float(expected(terms, analysis, masks).more.max())
        small = analysis.cut(masks).eval()
        assert 0.5 * model < model <= memory_of(small, call_of(small, gated.batch(ROWS).tensors[0]))


@both
def test_no_moment_is_within_another(network, x):
    gated = analysed(network, x).gated
    found = held(gated.structure, gated.evaluation(), gated.batch(ROWS).tensors)
    for one in found.moments:
        others = [other for other in found.moments if other != one]
        assert not any(all(a <= b for a, b in zip(one, other, strict=True)) for other in others)
    assert len(set(found.moments)) == len(found.moments)


def test_a_batch_repeats_what_was_traced_or_what_is_given():
    gated = analysed(*NETWORKS["a row"]).gated
    (x,) = gated.batch(5).tensors
    assert x.shape == (5, 2, 8, 8) and torch.equal(x[0], x[2]) and not torch.equal(x[0], x[1])
    (given,) = gated.batch(3, torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, 2, 8, 8)).tensors
    assert given[:, 0, 0, 0].tolist() == [0.0, 1.0, 0.0]
    assert given.untyped_storage().nbytes() == given.numel() * 4  # memory of its own, and no more
    assert len(gated.batch(1).tensors[0]) == 1
