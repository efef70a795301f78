"""Inputs, and features behind a flatten, are units of networks of any form, as exact as all others."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from bayesprune.errors import NothingToGateError, SettingsError
from bayesprune.export import load, save
from bayesprune.structure.graph import PlainGraph, analyse
from bayesprune.structure.groups import close_over
from tests.nightly import one_in
from tests.structure.graph.checks import assert_matters, assert_same, drawn_alive, everything, gates_of, run
from tests.structure.graph.networks import CASES, without_chance_


def born(analysis):
    """Names of the groups whose units no layer makes."""
    labels = analysis.structure.findings[True].labels
    return {b.name for b in labels.born.values()} & {group.name for group in analysis.groups}


def assert_exact(network, inputs, alive_of, **asked):
    """Masked, cut, and plain networks give the same in both modes."""
    analysis = analyse(network, inputs, inputs=True, **asked)
    alive = close_over(analysis.slots, alive_of(analysis))
    for training in (False, True):
        masked = run(analysis.gated, inputs, training, gates_of(alive, torch.float64))
        assert_same(run(analysis.cut(alive), inputs, training), masked)
    return analysis, alive


WITH_INPUTS = sorted(name for name, case in CASES.items() if case.batch(1)[0].is_floating_point())


@pytest.mark.parametrize("name", one_in(3, WITH_INPUTS))
def test_cut_equals_masked_with_units_at_the_inputs(name):
    case = CASES[name]
    network, inputs = without_chance_(case.network()), case.batch(3)
    try:
        analysis, _ = assert_exact(network, inputs, lambda a: drawn_alive(a, 1))
    except NothingToGateError:
        assert not born(analyse(network, inputs, inputs=False))
        return
    if born(analysis):
        groups = {group.name: group for group in analysis.groups}
        assert all(groups[name].fan_in == 1 for name in born(analysis))


class Residual(nn.Module):
    """A stream of channels that is flattened, with an input that two layers read."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.side = (nn.Conv2d(3, 4, 3, padding=1) for _ in range(3))
        self.second, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.pool, self.flat = nn.AvgPool2d(2), nn.Flatten()
        self.hidden, self.head = nn.Linear(16, 5), nn.Linear(5, 2)

    def forward(self, x):
        y = self.first(x).relu()
        y = y + self.norm(self.second(y)) + self.side(x)
        return self.head(self.hidden(self.flat(self.pool(y))).relu())


class TwoFlattens(nn.Module):
    """Two stacks of channels whose flattened features are added."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Conv1d(2, 3, 1), nn.Conv1d(2, 3, 1), nn.Linear(12, 2)

    def forward(self, x):
        return self.head((self.left(x).relu().flatten(1) + self.right(x).sigmoid().flatten(1)).tanh())


class AlsoPooled(nn.Module):
    """Channels that one layer reads flattened, and another one pooled; one weight for both."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(2, 3, 1), nn.Linear(15, 2)

    def forward(self, x):
        y = self.conv(x).relu()
        return self.head(torch.cat([y.flatten(1), y.mean(-1)], 1))


class Returned(nn.Module):
    """A flattened tensor that the network also returns."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(2, 3, 1), nn.Linear(12, 2)

    def forward(self, x):
        y = self.conv(x).relu().flatten(1)
        return self.head(y), y


class Sequence(nn.Module):
    """Layers that read the last dimension."""

    def __init__(self):
        super().__init__()
        self.up, self.norm, self.head = nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.norm(self.up(x)).mean(1))


class Branches(nn.Module):
    """Pixels that a flatten hands to a layer one by one, in a network that is no row."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.head = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.up(torch.flatten(x, 1))
        return self.head(x + self.down(x.relu()))


class Two(nn.Module):
    """Two inputs."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Linear(3, 5), nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x, y):
        return self.head(self.left(x).relu() * self.right(y))


def batch(*shape, rows=6):
    torch.manual_seed(3)
    return torch.randn(rows, *shape, dtype=torch.double)


@pytest.mark.parametrize(
    "kind, inputs, groups",
    [
        (Residual, (batch(3, 4, 4),), {"input": 3, "flatten": 16}),
        (TwoFlattens, (batch(2, 4),), {"input": 2, "flatten": 12}),
        (AlsoPooled, (batch(2, 4),), {"input": 2, "flatten": 12}),
        (Returned, (batch(2, 4),), {"input": 2}),
        (Sequence, (batch(3, 5),), {"input": 5}),
        (Branches, (batch(2, 4),), {"input": 8}),
        (Two, (batch(3), batch(4)), {"input": 3, "input_2": 4}),
    ],
)
def test_groups_of_inputs_and_features(kind, inputs, groups):
    torch.manual_seed(0)
    network = kind().double()
    for seed in range(3):
        analysis, alive = assert_exact(network, inputs, lambda a, seed=seed: drawn_alive(a, seed, 0.4))
        sizes = {group.name: group.size for group in analysis.groups}
        assert groups.items() <= sizes.items()
        assert not {"input", "flatten"} & (set(sizes) - set(groups))
    small = analysis.cut(alive)
    assert isinstance(small, PlainGraph)  # its class would be handed more than it reads
    for name in groups:
        with torch.no_grad():
            some = {**everything(analysis), name: alive[name]}
            assert_matters(run(analysis.gated, inputs, False, gates_of(some, torch.float64)),
                           run(analysis.gated, inputs, False))  # fmt: skip


def test_without_being_asked_other_networks_keep_their_inputs_and_their_class():
    network, x = Residual().double(), batch(3, 4, 4)
    analysis = analyse(network, x)
    assert not {"input", "flatten"} & {group.name for group in analysis.groups}
    assert type(analysis.cut(drawn_alive(analysis, 0))) is Residual
    with_inputs = analyse(network, x, inputs=True)
    kept = everything(with_inputs)
    kept["first"][1] = False
    assert type(with_inputs.cut(kept)) is Residual  # nothing of the inputs was left out
    row = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    assert [g.name for g in analyse(row, batch(3)).groups] == ["input", "0"]
    assert [g.name for g in analyse(row, batch(3), inputs=False).groups] == ["0"]


def test_groups_of_inputs_and_features_can_be_excluded():
    network, x = Residual().double(), batch(3, 4, 4)
    names = [g.name for g in analyse(network, x, ["input", "flat*"], inputs=True).groups]
    assert "input" not in names and "flatten" not in names
    analysis, alive = assert_exact(network, (x,), lambda a: drawn_alive(a, 2), exclude=["flatten"])
    channels = int(alive["first"].sum())
    assert analysis.cut(alive).get_parameter("hidden.weight").shape[1] == 4 * channels
    with pytest.raises(SettingsError, match="exclude names 'input'"):
        analyse(network, x, ["input"])


def test_features_of_channels_that_stay_can_go():
    analysis, _ = assert_exact(
        Residual().double(), (batch(3, 4, 4),), lambda a: drawn_alive(a, 3, 0.5), exclude=["first"]
    )
    assert "flatten" in {g.name for g in analysis.groups}


def test_a_channel_takes_its_features_along():
    analysis = analyse(Residual().double(), batch(3, 4, 4), inputs=True)
    alive = everything(analysis)
    alive["first"][1] = False
    analysis.cut_(alive)  # nobody said anything of features
    start = sum(g.size for g in analysis.groups[: [g.name for g in analysis.groups].index("flatten")])
    assert analysis.gated.alive[start : start + 16].view(4, 4).all(1).tolist() == [True, False, True, True]


def test_a_row_that_lost_inputs_is_loaded_where_there_is_no_bayesprune(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 2)
    ).double()
    x = batch(3, 4, 4)
    analysis = analyse(network, x)
    alive = close_over(analysis.slots, drawn_alive(analysis, 0, 0.4))
    small = analysis.cut(alive).eval()
    assert type(small) is nn.Sequential and "input_select" in dict(small.named_children())
    assert {type(m).__module__.partition(".")[0] for m in small.modules()} == {"torch"}
    torch.save(small, tmp_path / "small.pt")
    torch.save(x, tmp_path / "x.pt")
    program = (
        "import sys, torch\n"
        "sys.modules['bayesprune'] = None\n"
        "network = torch.load(sys.argv[1] + '/small.pt', weights_only=False)\n"
        "torch.save(network(torch.load(sys.argv[1] + '/x.pt')), sys.argv[1] + '/y.pt')\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=tmp_path)
    assert torch.equal(torch.load(tmp_path / "y.pt"), small(x))
    save(small, tmp_path, x)
    again = load(tmp_path)
    assert torch.equal(again(x), small(x))
    save(torch.load(tmp_path / "small.pt", weights_only=False), tmp_path / "again", x)
    for file in ("architecture.json", "pruned.safetensors"):  # a pickle later it is the same network
        assert (tmp_path / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_a_network_of_any_form_that_lost_inputs_is_saved_and_loaded(tmp_path):
    x = batch(3, 4, 4)
    analysis = analyse(Residual().double(), x, inputs=True)
    small = analysis.cut(close_over(analysis.slots, drawn_alive(analysis, 0, 0.4))).eval()
    save(small, tmp_path, x)
    assert torch.equal(load(tmp_path)(x), small(x))
