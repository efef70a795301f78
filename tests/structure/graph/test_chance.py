"""Networks that draw, that begin at zero, or that leave gradients out: what is found does not hang on it."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bayesprune as bp
from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.graph import analyse
from bayesprune.structure.graph.analysis.structure import find_structure
from bayesprune.structure.graph.capture.capture import capture
from bayesprune.structure.graph.capture.rows import row_dimensions
from tests.structure.graph.test_rules import exact

ROWS = torch.randn(4, 5, 4, generator=torch.Generator().manual_seed(0))  # (rows, time, features)


class Residual(nn.Module):
    """x + f(x) in one way or another, and a mean over time."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(8, 6)
        self.scale, self.head = nn.Parameter(torch.ones(6)), nn.Linear(6, 3)

    def branch(self, x):
        return self.second(self.first(x).relu())

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.branch(x)).mean(1))


class DropsRows(Residual):
    """Stochastic depth as torchvision and timm write it."""

    def branch(self, x):
        kept = torch.empty(len(x), 1, 1).bernoulli_(0.1) if self.training else torch.ones(len(x), 1, 1)
        return super().branch(super().branch(x) * kept)


class FillsRows(Residual):
    """Stochastic depth by hand: whole rows are filled with zeros."""

    def branch(self, x):
        return super().branch(super().branch(x).masked_fill(torch.rand(x.shape[0], 1, 1) < 0.9, 0.0))


class FloorsRows(Residual):
    def branch(self, x):
        return super().branch(super().branch(x) * (torch.rand(x.shape[0], 1, 1) + 0.1).floor_())


class AddsNoise(Residual):
    def branch(self, x):
        return super().branch(x + torch.randn_like(x) + torch.normal(x, 1.0))


class Gumbel(Residual):
    def branch(self, x):
        return super().branch(x * F.gumbel_softmax(x, dim=1))


class Attends(Residual):
    def branch(self, x):
        y = F.scaled_dot_product_attention(x, x, x, dropout_p=0.9 if self.training else 0.0)
        return super().branch(y)


class Recurrent(Residual):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 6, 2, dropout=0.9, batch_first=True)

    def branch(self, x):
        return super().branch(self.lstm(x)[0])


class Encoder(Residual):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)

    def branch(self, x):
        return super().branch(self.layer(x))


class ZeroBranch(Residual):
    def __init__(self):
        super().__init__()
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)


class ZeroScale(Residual):
    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.scale)

    def branch(self, x):
        return super().branch(self.scale * x)


class ZeroGRN(Residual):
    """Global response normalisation, which ConvNeXt V2 begins at zero."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.scale)

    def branch(self, x):
        norm = x.norm(dim=1, keepdim=True)
        return super().branch(self.scale * (x * norm / (norm.mean(-1, keepdim=True) + 1e-6)))


class AllZero(Residual):
    def __init__(self):
        super().__init__()
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class OwnTokens(Residual):
    """What the branch reads knows nothing of the inputs: tokens of its own, the same for every row."""

    def branch(self, x):
        tokens = self.scale.expand(x.shape[0], 5, -1)
        return super().branch(tokens) + super().branch(torch.randn(x.shape[0], 5, 6))


class Binary(Residual):
    """Comparisons, choices and bins let no number through."""

    def branch(self, x):
        y = super().branch((x > 10).float()) + super().branch(torch.where(x > 10, x, 0.0))
        return y + super().branch(F.hardsigmoid(x).nan_to_num())


class RefusesMarks(Residual):
    """A decomposition raises on what is no number."""

    def branch(self, x):
        return super().branch(x * torch.linalg.svdvals(x.relu()).mean(-1)[:, None, None])


class Embedded(nn.Module):
    """Bins of the inputs, looked up in tables that begin at zero."""

    def __init__(self):
        super().__init__()
        self.table, self.first, self.head = nn.Embedding(10, 6), nn.Linear(6, 8), nn.Linear(8, 3)
        nn.init.zeros_(self.table.weight)

    def forward(self, x):
        x = self.table(x)
        return self.head(
            self.first(x).relu().mean(1)
            + self.first(self.table.weight[torch.ones_like(x[..., 0]).long()]).mean(1)
        )


PLACES = {(0, 1, 1), (1, 1, 1), (0, 1, 5)}
"""Rows first; time first; all rows at one time after those of another, as attention multiplies them."""

CHANCE = [DropsRows, FillsRows, FloorsRows, AddsNoise, Gumbel, Attends, Recurrent, Encoder]
ZERO = [ZeroBranch, ZeroScale, ZeroGRN, AllZero, OwnTokens, Binary, RefusesMarks]


@pytest.mark.parametrize("network", CHANCE + ZERO)
def test_rows_are_found_in_all_that_is_read(network):
    torch.manual_seed(0)
    structure = find_structure(network(), ROWS)
    for training in (True, False):
        found = structure.findings[training]
        read = {read.source.name for read in (*found.reads, *found.norms)}
        assert len(read) > 1 and {found.rows.get(name) for name in read} <= PLACES
    sizes = {g.name: g.size for g in structure.groups}
    assert sizes["first"] == 8


@pytest.mark.parametrize("network", [DropsRows, FillsRows])
def test_no_seed_hides_the_rows(network):
    torch.manual_seed(0)
    captured = capture(network(), ROWS)
    graph = captured.graphs[True]
    wanted = {n.name for n in graph.graph.nodes if str(n.target).startswith("aten.linear")}
    for seed in range(60):
        torch.manual_seed(seed)
        assert set(row_dimensions(graph, captured.example, wanted).values()) == {(0, 1, 1)}


@pytest.mark.parametrize("network", [FillsRows, ZeroBranch, ZeroGRN, OwnTokens])
def test_they_are_fitted(network):
    x, y = ROWS.repeat(4, 1, 1), torch.arange(16) % 3
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0))
    gated = bp.gate(network(), x[:1], prior=prior, likelihood=bp.Categorical(rows=16))
    result = bp.fit(gated, (x, y), epochs=1, batch_size=8, progress=False)
    assert torch.isfinite(bp.prune(result).eval()(x)).all()


class ReadsAlone(Residual):
    """A layer over a parameter alone: it has one result for all rows."""

    def forward(self, x):
        table = self.second(self.first(self.scale[None]).relu())  # (1, 6)
        return self.head((self.stem(x) + table).mean(1))


def test_what_is_the_same_for_all_rows_stays_and_says_so():
    analysis = analyse(ReadsAlone(), ROWS)
    assert [group.name for group in analysis.groups] == ["stem"]
    assert any(f.place == "second (linear)" and "no rows of its own" in f.reason for f in analysis.frozen)


class Coin(Residual):
    def forward(self, x):
        x = self.stem(x)
        skipped = self.training and random.random() < 1e-6
        return self.head((x if skipped else x + self.branch(x)).mean(1))


class NumPyCoin(Coin):
    def forward(self, x):
        return super().forward(x) * (1.0 if not self.training else float(np.random.rand() > 1e-6))


class OwnCoin(Coin):
    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(0)

    def forward(self, x):
        return Residual.forward(self, x) * (float(self.rng.random()) if self.training else 1.0)


class Counter(Residual):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) * (1 + self.calls if self.training else 1)


class DropsAndCounts(Residual):
    """A counter of evaluation, beside a dropout that draws in training alone."""

    def __init__(self):
        super().__init__()
        self.calls, self.drop = 0, nn.Dropout(0.5)

    def forward(self, x):
        self.calls += not self.training
        return super().forward(self.drop(x)) * (1 if self.training else self.calls)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (DropsAndCounts, "in evaluation computes something else"),
        (Coin, "draws from random in training"),
        (NumPyCoin, "draws from random and numpy.random in training"),
        (OwnCoin, "in training computes something else"),
        (Counter, "in training computes something else"),
    ],
)
def test_chance_and_counters_are_refused(network, says):
    before = random.getstate()
    with pytest.raises(UnsupportedNetworkError, match=says):
        analyse(network(), ROWS)
    assert random.getstate() == before


class SkipsByChance(Residual):
    """A layer that is skipped where a draw is below a probability, as speech models write it."""

    def __init__(self, probability):
        super().__init__()
        self.probability = probability

    def forward(self, x):
        x = self.stem(x)
        skipped = self.training and torch.rand([]) < self.probability
        return self.head((x if skipped else x + self.branch(x)).mean(1))


def test_a_layer_that_is_skipped_with_no_chance_is_there():
    exact(SkipsByChance(0.0), ROWS)
    exact(SkipsByChance(1.0), ROWS)  # never there in training
    for probability in (0.1, 1e-9):
        with pytest.raises(UnsupportedNetworkError, match="data-dependent"):
            analyse(SkipsByChance(probability), ROWS)


class FrozenBackbone(Residual):
    """A backbone without gradients; the head has them, and a norm has running statistics."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        with torch.no_grad():
            x = self.norm(self.stem(x).transpose(1, 2)).transpose(1, 2).relu()
            constant = x.new_tensor([2.0])
            y = self.first(x).relu() * constant
        with torch.autocast("cpu", enabled=False):
            return self.head((x + self.second(y)).mean(1))


class GradAgain(FrozenBackbone):
    """Gradients are switched on again inside of a region without them."""

    def forward(self, x):
        with torch.no_grad():
            x = self.first(self.stem(x)).relu()
            with torch.enable_grad():
                y = self.second(x)
            z = y * 2
        return self.head((y + z).mean(1))


@pytest.mark.parametrize("kind", [FrozenBackbone, GradAgain])
def test_regions_without_gradients_are_exact(kind):
    network = kind().double()
    x = ROWS.double()
    analysis = analyse(network, x)
    sizes = {group.name: group.size for group in analysis.groups}
    assert sizes["first"] == 8 and sizes["stem"] == 6
    open_gates = {
        name: torch.ones(size, dtype=torch.double, requires_grad=True) for name, size in sizes.items()
    }
    gated = analysis.gated.train()
    for module, gates in ((network.train(), {}), (gated, {"gates": open_gates})):
        module(x, **gates).square().sum().backward()
    theirs = dict(gated.network.named_parameters())
    for name, parameter in network.named_parameters():
        without = name.startswith(("stem", "norm", "first", "scale"))
        assert (parameter.grad is None) == without == (theirs[name].grad is None), name
        if parameter.grad is not None:
            assert torch.allclose(parameter.grad, theirs[name].grad, atol=1e-12)
    for name in ("first", "stem"):
        assert open_gates[name].grad.abs().max() > 0
    assert {"head.weight", "second.weight"} == {n for n in gated.weight_names() if n.endswith("weight")}
    alive = {"first": torch.arange(8) % 3 > 0, "stem": torch.arange(6) > 1}
    cut = analysis.cut(alive)
    for training in (True, False):
        masked = analysis.gated.train(training)(
            x, gates={name: mask.double() for name, mask in alive.items()}
        )
        assert torch.allclose(cut.train(training)(x), masked, rtol=0, atol=1e-10)


class Casts(Residual):
    def branch(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return super().branch(x).float()


def test_autocast_that_is_on_is_refused():
    with pytest.raises(UnsupportedNetworkError, match=r"autocast on"):
        analyse(Casts(), ROWS)
