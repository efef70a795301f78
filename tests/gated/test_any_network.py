"""gate(), Pyro, fit and prune on a network that is no row of layers."""

import copy

import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO
from torch import nn

import bayesprune as bp
from bayesprune.errors import RemovalError
from bayesprune.structure.graph import GraphNetwork


class Residual(nn.Module):
    """Two branches that are added, one normalised; a product of two units' activations."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Linear(4, 6), nn.LayerNorm(6)
        self.up, self.down, self.head = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.down(self.up(self.norm(x)).tanh()).sigmoid())


RECIPE = bp.Recipe(gates=bp.GateSteps(learning_rate=0.3, momentum=0.9, every=1), learning_rate=1e-2)


@pytest.fixture
def rows():
    torch.manual_seed(1)
    x = torch.randn(96, 4)
    return x, (x[:, 0] + x[:, 1] > 0).long() + (x[:, 0] > 1).long()


def gated_on(network=None, price=2.0, **settings):
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price))
    torch.manual_seed(0)
    settings = {"layers": "none", **settings}
    return bp.gate(
        network or Residual(), torch.randn(2, 4), prior=prior, likelihood=bp.Categorical(rows=96), **settings
    )


def test_groups_are_those_that_go_together():
    gated = gated_on()
    assert isinstance(gated.network, GraphNetwork)
    assert [(group.name, group.size) for group in gated.groups] == [("stem", 6), ("up", 8)]


def test_open_gates_are_the_users_network_which_is_left_alone():
    network = Residual()
    before = copy.deepcopy(network.state_dict())
    gated, x = gated_on(network), torch.randn(5, 4)
    gates = {group.name: torch.ones(group.size) for group in gated.groups}
    assert torch.allclose(gated.outputs(x, gates), network(x), atol=1e-6)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_its_graphs_follow_it_to_another_type_and_device():
    """A cut compares outputs on the traced example, and gates look their units up: both have to follow."""
    gated, x = gated_on().double(), torch.randn(5, 4, dtype=torch.double)
    dead = torch.zeros(14, dtype=torch.bool)
    dead[[0, 8]] = True
    gates = gated.by_group((~dead).double())
    masked = gated.outputs(x, gates)
    gated.remove_(dead)
    torch.testing.assert_close(bp.prune(gated)(x), masked, rtol=1e-10, atol=1e-10)
    elsewhere = gated.to("meta")  # a device without numbers: whatever stays behind raises
    row_gates = {name: z.expand(5, -1).to("meta") for name, z in gates.items()}
    assert elsewhere.network(x.to("meta"), row_gates).device.type == "meta"


def test_outputs_follow_given_weights():
    """Pyro samples weights and hands them in: the graphs have to compute with those."""
    gated, x = gated_on(), torch.randn(5, 4)
    gates = {group.name: torch.ones(group.size) for group in gated.groups}
    doubled = {name: 2 * tensor.detach() for name, tensor in gated.weight_tensors().items()}
    other = copy.deepcopy(gated)
    with torch.no_grad():
        for name, tensor in other.weight_tensors().items():
            tensor.copy_(doubled[name])
    given = gated.outputs(x, gates, doubled)
    assert torch.allclose(given, other.outputs(x, gates), atol=1e-6)
    assert (given - gated.outputs(x, gates)).abs().max() > 1e-2


class BagOfTokens(nn.Module):
    """Neither the order of its inputs nor, where all are alike, another place for them changes anything."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.head = nn.Embedding(4, 3), nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.up(self.embed(x).mean(1)).tanh())


@pytest.mark.parametrize("example", [torch.zeros(1, 3).long(), torch.tensor([[1, 2, 1], [3, 0, 3]])])
def test_rows_of_integers_have_gates_of_their_own(example):
    """The rows are found by changing one: with tokens that has to be seen through sums and palindromes."""
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(1.0))
    gated = bp.gate(BagOfTokens(), example, prior=prior, likelihood=bp.Categorical(rows=9))
    x = torch.randint(4, (6, 3))
    gates = {g.name: torch.bernoulli(torch.full((6, g.size), 0.5)) for g in gated.groups}
    one_by_one = [gated.outputs(x[i : i + 1], {n: z[i] for n, z in gates.items()})[0] for i in range(6)]
    torch.testing.assert_close(gated.outputs(x, gates), torch.stack(one_by_one))


def test_draws_of_gates_run_at_once():
    gated, x = gated_on(), torch.randn(5, 4)
    draws = {group.name: torch.bernoulli(torch.full((7, 1, group.size), 0.5)) for group in gated.groups}
    together = gated.outputs(x, draws)
    one_by_one = torch.stack([gated.outputs(x, {k: z[i, 0] for k, z in draws.items()}) for i in range(7)])
    assert together.shape == (7, 5, 3) and torch.allclose(together, one_by_one, atol=1e-6)


def test_pyro_runs_on_it(rows):
    gated = gated_on()
    assert torch.isfinite(torch.tensor(Trace_ELBO().loss(gated.model, gated.guide, *rows)))
    drawn = Predictive(gated.model, guide=gated.guide, num_samples=3)(rows[0][:4])
    assert drawn["y"].shape[0] == 3 and drawn["gate/stem"].shape[-1] == 6


def test_fit_removes_units_and_prune_gives_the_users_class(rows):
    gated = gated_on(price={"stem": 4.0, "up": 1.0})
    result = bp.fit(gated, rows, epochs=60, batch_size=16, recipe=RECIPE, progress=False)
    small = bp.prune(result)
    assert type(small) is Residual and sum(result.architecture) < 14
    assert small.stem.weight.shape == (result.architecture[0], 4)
    assert small.up.weight.shape == (result.architecture[1], result.architecture[0])
    kept = {name: torch.ones(n) for name, n in result.gated.kept().items()}
    masked = result.gated.network.eval()(rows[0], kept)
    assert torch.allclose(small(rows[0]), masked, atol=1e-5)
    assert bp.evaluate(small, rows, gated.likelihood).score < 25


def test_an_interrupted_fit_goes_on_to_the_same_end(rows, tmp_path):
    settings = {"epochs": 24, "batch_size": 16, "recipe": RECIPE, "progress": False}
    whole = bp.fit(gated_on(price={"stem": 4.0, "up": 1.0}), rows, **settings)
    calls = iter(range(100))

    class Stop(Exception):
        pass

    def stop_late(epoch):
        if next(calls) == 11:
            raise Stop

    with pytest.raises(Stop):
        bp.fit(
            gated_on(price={"stem": 4.0, "up": 1.0}),
            rows,
            checkpoint=tmp_path,
            on_epoch=stop_late,
            **settings,
        )
    again = bp.fit(
        gated_on(price={"stem": 4.0, "up": 1.0}), rows, checkpoint=tmp_path, resume=True, **settings
    )
    assert again.architecture == whole.architecture and sum(whole.architecture) < 14
    for name, value in whole.gated.state_dict().items():
        assert torch.equal(value, again.gated.state_dict()[name]), name


def test_a_cut_that_changes_the_outputs_is_rolled_back(monkeypatch):
    """Whatever was cut comes back: parameters, gradients, moments, sizes; and the network still runs."""
    gated, x = gated_on(), torch.randn(5, 4)
    network = gated.network
    optimiser = torch.optim.Adam(network.parameters())
    network(x).sum().backward()
    optimiser.step()
    before, outputs = copy.deepcopy(network.state_dict()), network(x)
    moments = {name: optimiser.state[p]["exp_avg"].clone() for name, p in network.named_parameters()}
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    with monkeypatch.context() as patch:
        patch.setattr("bayesprune.structure.graph.network.alike", lambda first, second: False)
        with pytest.raises(RemovalError, match="nothing was removed"):
            network.cut_({"stem": torch.arange(6) > 1}, optimiser)
    assert network.stem.out_features == 6 and bool(network.alive.all())
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name]) and torch.equal(parameter.grad, gradients[name])
        assert torch.equal(optimiser.state[parameter]["exp_avg"], moments[name])
    assert torch.equal(network(x), outputs)
    network.cut_({"stem": torch.arange(6) > 1}, optimiser)
    assert network.stem.out_features == 4


def test_units_know_their_fans():
    stem, up = gated_on().groups
    assert (stem.fan_in, up.fan_in, up.fan_out) == (4 + 8, 6, 6)  # stem and down produce one unit together
    assert stem.fan_out == 8 + 3  # up and head read it


class TwoSections(nn.Module):
    """Two sections on one stream, which a norm and the head read; the second reads the sum of the first."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.up1, self.down1, self.up2, self.down2 = (
            nn.Linear(*sizes) for sizes in ((6, 5), (5, 6), (6, 5), (5, 6))
        )

    def forward(self, x):
        x = self.stem(x)
        x = x + self.down1(self.up1(x).tanh())
        x = x + self.down2(self.up2(x).tanh())
        return self.head(self.norm(x))


@pytest.mark.parametrize("sections", [[0], [1], [0, 1]], ids=str)
def test_units_are_gated_where_they_are_read_when_sections_are_gone(sections):
    """What read a sum reads the shortcut now: its gates move there, or no unit could go any more."""
    gated, x = gated_on(TwoSections(), layers="sections"), torch.randn(5, 4)
    parts = gated.slices()
    dead = torch.zeros_like(gated.alive)
    dead[torch.tensor(sections) + parts["layers"].start] = True
    gated.remove_(dead)
    dead[parts["stem"].start + 2] = True
    masked = gated.outputs(x, gated.by_group((~dead & gated.alive).float()))
    assert (masked - gated.outputs(x, gated.by_group(gated.alive.float()))).abs().max() > 1e-3
    gated.remove_(dead)
    assert gated.kept()["stem"] == 5
    torch.testing.assert_close(bp.prune(gated)(x), masked, rtol=1e-5, atol=1e-5)


class Normed(nn.Module):
    """Batch normalisation: trying it out in training mode moves its statistics."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.up = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.norm(self.stem(x))
        return self.head(x + self.up(x).tanh())


def test_pruning_leaves_statistics_alone_and_keeps_the_class():
    gated, x = gated_on(Normed()), torch.randn(5, 4)
    gated.remove_(torch.arange(6) == 1)
    before = {name: value.clone() for name, value in gated.state_dict().items()}
    small = bp.prune(gated)
    assert type(small) is Normed
    for name, value in gated.state_dict().items():
        assert torch.equal(value, before[name]), name
    outputs = gated.eval().outputs(x, gated.by_group(gated.alive.float()))
    torch.testing.assert_close(small.eval()(x), outputs, rtol=1e-5, atol=1e-5)
