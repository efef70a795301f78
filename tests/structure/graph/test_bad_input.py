"""What cannot be analysed says where, what, and what to do; and the user's network is never changed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bayesprune.errors import NothingToGateError, SettingsError, UnsupportedNetworkError
from bayesprune.structure.graph import analyse

ROWS = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)


class BranchesOnValues(Base):
    def forward(self, x):
        x = self.first(x)
        if x.sum() > 0:
            x = x * 2
        return self.head(x)


class ReadsANumber(Base):
    def forward(self, x):
        x = self.first(x)
        return self.head(x) * int(x.abs().max().item())


class LoopsByValue(Base):
    def forward(self, x):
        x = self.first(x)
        for _ in range(int(x[0, 0] * 10)):
            x = self.second(x)
        return self.head(x)


class LeavesPyTorch(Base):
    def forward(self, x):
        x = torch.from_numpy(self.first(x).detach().numpy())
        return self.head(x)


class FailsInTraining(Base):
    def forward(self, x):
        if self.training:
            raise RuntimeError("no training here")
        return self.head(self.first(x))


class PairsOfRows(Base):
    def forward(self, x):
        x = self.first(x).view(len(x) // 2, 2, 6).mean(1)
        return self.head(x)


class PicksRows(Base):
    def forward(self, x):
        x = self.first(x)
        x = x[x[:, 0] > 0]
        return self.head(x)


class LoopsOverRows(Base):
    def forward(self, x):
        x = self.first(x)
        for row in range(len(x)):
            x = x + row
        return self.head(x)


@pytest.mark.parametrize(
    ("network", "says", "line"),
    [
        (BranchesOnValues, "data-dependent", "if x.sum() > 0:"),
        (ReadsANumber, "data-dependent", "int(x.abs().max().item())"),
        (LoopsByValue, "data-dependent", "for _ in range(int(x[0, 0] * 10)):"),
        (LeavesPyTorch, "numpy", "x = torch.from_numpy("),
        (FailsInTraining, "in training: no training here", 'raise RuntimeError("no training here")'),
        (PairsOfRows, "invalid for input of size", "x = self.first(x).view(len(x) // 2, 2, 6)"),
        (PicksRows, "depends on the values of the inputs", "x = x[x[:, 0] > 0]"),
        (LoopsOverRows, "depends on the number of rows", "test_bad_input.py"),
    ],
)
def test_the_line_that_cannot_be_traced_is_named(network, says, line, capfd):
    with pytest.raises(UnsupportedNetworkError) as told:
        analyse(network(), ROWS)
    assert says in str(told.value) and line in str(told.value)
    assert "must leave forward" in str(told.value) or "Write" in str(told.value)
    assert len(str(told.value)) < 600
    assert capfd.readouterr() == ("", "")


class Counts(Base):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.head(self.first(x)) * self.calls


def test_state_in_python_is_found():
    with pytest.raises(UnsupportedNetworkError, match="counters in Python"):
        analyse(Counts(), ROWS)


class NeedsKeyword(Base):
    def forward(self, x, *, scale):
        return self.head(self.first(x)) * scale


class ReturnsNothing(Base):
    def forward(self, x):
        self.head(self.first(x))


def plain():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


class Lazy(nn.Sequential):
    def __init__(self):
        super().__init__(nn.LazyLinear(6), nn.ReLU(), nn.Linear(6, 3))


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    ("network", "example", "says"),
    [
        (NeedsKeyword, ROWS, "missing 1 required keyword-only argument: 'scale'"),
        (ReturnsNothing, ROWS, "ReturnsNothing returns no tensor"),
        (plain, torch.zeros(2, 5), r"rows of shape \(1, 5\): (addmm: )?mat1 and mat2"),
        (plain, torch.zeros(2, 4, dtype=torch.long), "same dtype, but got Long and Float"),
        (plain, torch.zeros(0, 4), r"The example has no rows \(input \(0, 4\)"),
        (plain, {"input": "text"}, "example: dict. Give a batch"),
        (lambda: nn.Bilinear(4, 4, 3), (ROWS, ROWS[:3]), "unequal numbers of rows: input1 4, input2 3"),
        (lambda: F.relu, ROWS, "The network is a (function|builtin)"),
        (Lazy, ROWS, "Parameter '0.weight' has no size yet: run the network once"),
        (lambda: nn.DataParallel(plain()), ROWS, "wrapped in a DataParallel: hand over network.module"),
        (
            lambda: torch.compile(plain(), backend="eager"),
            ROWS,
            "wrapped in a OptimizedModule: hand over network._orig_mod",
        ),
    ],
)
def test_what_was_handed_over_wrongly_is_told(network, example, says):
    with pytest.raises(UnsupportedNetworkError, match=says):
        analyse(network(), example)


@pytest.mark.parametrize(
    ("network", "exclude", "says"),
    [
        (nn.ReLU, (), "no layer of it reads what another one makes"),
        (lambda: nn.Linear(4, 3), (), "output: it is what the network returns"),
        (plain, ("*",), r"exclude=\['\*'\] lists all its groups"),
    ],
)
def test_nothing_to_gate_says_why(network, exclude, says):
    with pytest.raises(NothingToGateError, match=says):
        analyse(network(), ROWS, exclude)


def test_an_exclusion_that_matches_nothing_lists_what_there_is():
    with pytest.raises(SettingsError, match=r"exclude names 'conv\*'.*There are 'input', '0'\."):
        analyse(plain(), ROWS, ["conv*"])


class DuplicateAndUnused(Base):
    """One layer under two names, one weight in two layers, and a parameter that nobody uses."""

    def __init__(self):
        super().__init__()
        self.again, self.tied, self.spare = self.second, nn.Linear(6, 6), nn.Parameter(torch.zeros(3))
        self.tied.weight = self.second.weight

    def forward(self, x):
        return self.head(self.tied(self.again(self.second(self.first(x).relu()).tanh()).sigmoid()).cos())


def test_duplicate_and_unused_parameters_stay_what_they_are():
    network = DuplicateAndUnused()
    analysis = analyse(network, ROWS)
    assert [group.size for group in analysis.groups] == [6]
    alive = {analysis.groups[0].name: torch.tensor([True, True, False, True, False, True])}
    small = analysis.cut(alive).eval()
    assert small.again is small.second and small.tied.weight is small.second.weight
    assert small.second.weight.shape == (4, 4) and torch.equal(small.spare, network.spare)
    masked = analysis.gated.eval()(ROWS, gates={k: v.float() for k, v in alive.items()})
    assert torch.allclose(small(ROWS), masked, atol=1e-6)


class ClampsItsWeight(Base):
    """Writes into its parameters whenever it runs."""

    def forward(self, x):
        with torch.no_grad():
            self.first.weight.clamp_(-0.01, 0.01)
        return self.head(self.second(self.first(x)).relu())


class ClampsInTraining(Base):
    def forward(self, x):
        if self.training:
            self.first.weight.detach().clamp_(-0.01, 0.01)
        return self.head(self.second(self.first(x)).relu())


@pytest.mark.parametrize(
    "build", [ClampsItsWeight, ClampsInTraining, plain, PicksRows, FailsInTraining, Counts]
)
@pytest.mark.parametrize("training", [True, False])
def test_the_users_network_is_never_changed(build, training):
    network = build().train(training)
    next(network.children()).train(not training)
    before, modes = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    try:
        analysis = analyse(network, ROWS)
        small = analysis.cut({g.name: torch.arange(g.size) % 3 > 0 for g in analysis.groups})
        for module in (small, analysis.gated):
            module(ROWS).sum().backward()
    except UnsupportedNetworkError:
        pass
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert [m.training for m in network.modules()] == modes
    assert all(p.grad is None for p in network.parameters())


def test_what_is_read_before_gates_are_asked_for_is_the_network_as_it_is_then():
    """Until then nothing is copied; after it, the gated network and what is cut from it are its own."""
    network = plain()
    analysis = analyse(network, ROWS)
    whole = {"0": torch.ones(6, dtype=torch.bool)}
    with torch.no_grad():
        network[0].weight.mul_(2.0)
    assert torch.equal(analysis.cut(whole)[0].weight, network[0].weight)
    assert torch.equal(analysis.gated.network[0].weight, network[0].weight)
    with torch.no_grad():
        network[0].weight.mul_(2.0)
    assert not torch.equal(analysis.gated.network[0].weight, network[0].weight)
    assert not torch.equal(analysis.cut(whole)[0].weight, network[0].weight)
