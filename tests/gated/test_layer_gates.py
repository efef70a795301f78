"""Whole sections under gates: in Pyro, through a fit, under a budget, and back from a checkpoint."""

import copy
from dataclasses import replace

import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn

import bayesprune as bp
from bayesprune.gated.dead import dead_units


class Residual(nn.Module):
    """A stem and three sections beside the stream, all alike."""

    def __init__(self, width=8, hidden=6):
        super().__init__()
        self.stem, self.head = nn.Linear(4, width), nn.Linear(width, 3)
        self.up = nn.ModuleList(nn.Linear(width, hidden) for _ in range(3))
        self.down = nn.ModuleList(nn.Linear(hidden, width) for _ in range(3))

    def forward(self, x):
        x = self.stem(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(up(x).relu())
        return self.head(x)


RECIPE = bp.Recipe(
    gates=bp.GateSteps(learning_rate=0.3, momentum=0.9, every=1),
    learning_rate=1e-2,
    decide=0.5,
    shrink=bp.Shrink(every=100),
    compact_learning_rate=2e-3,
)
GROUPS = {"stem": 8, "up_0": 6, "up_1": 6, "up_2": 6, "layers": 3}


@pytest.fixture
def linear_rows():
    """Classes that a linear network tells apart: no section is needed."""
    torch.manual_seed(1)
    x = torch.randn(96, 4)
    return x, (x[:, :3] * 3).argmax(1)


def gated_on(price=2.0, prior=None, **settings):
    prior = prior or bp.priors.BernoulliGates(bp.priors.Flattening(price))
    torch.manual_seed(0)
    return bp.gate(Residual(), torch.randn(2, 4), prior=prior, likelihood=bp.Categorical(rows=96), **settings)


def test_sections_are_units_of_a_group_of_their_own():
    gated = gated_on()
    assert {group.name: group.size for group in gated.groups} == GROUPS
    sites = poutine.trace(gated.model).get_trace(torch.randn(5, 4)).nodes
    assert sites["gate/layers"]["value"].shape == (3,)
    assert sites["pi/layers"]["value"].shape == (3,)


def test_closed_gate_is_the_network_without_the_section():
    gated, x = gated_on().eval(), torch.randn(5, 4)
    gates = {name: torch.ones(size) for name, size in GROUPS.items()}
    gates["layers"][1] = 0.0
    network = gated.network.network
    y = network.stem(x)
    for number in (0, 2):
        y = y + network.down[number](network.up[number](y).relu())
    assert torch.allclose(gated.outputs(x, gates), network.head(y), atol=1e-6)
    many = {name: z.expand(4, 1, -1) for name, z in gates.items()}
    assert torch.allclose(gated.outputs(x, many), gated.outputs(x, gates).expand(4, -1, -1), atol=1e-6)


def test_the_elbo_by_pyro_learns_the_gates_of_sections(linear_rows):
    gated = gated_on()
    loss = Trace_ELBO().differentiable_loss(gated.model, gated.guide, *linear_rows)
    loss.backward()
    assert gated.log_odds.grad[-3:].abs().min() > 0


def test_a_fit_removes_sections_that_nothing_needs(linear_rows):
    result = bp.fit(gated_on(price=4.0), linear_rows, epochs=60, batch_size=32, recipe=RECIPE, progress=False)
    kept = dict(zip(GROUPS, result.architecture, strict=True))
    assert kept["layers"] < 3
    dead = ~result.gated.by_group(result.gated.alive)["layers"]
    assert all(kept[f"up_{n}"] == 0 for n in dead.nonzero().flatten().tolist())
    assert all(epoch.elbo == epoch.elbo for epoch in result.history)
    small = bp.prune(result)
    x = linear_rows[0]
    gates = {name: mask.float() for name, mask in result.gated.by_group(result.gated.alive).items()}
    assert torch.allclose(small(x), result.gated.eval().outputs(x, gates), atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) == result.gated.network.parameter_count()
    assert (small(x).argmax(1) == linear_rows[1]).float().mean() > 0.9


def test_what_is_inside_a_dead_section_may_all_go_and_elsewhere_a_unit_stays():
    gated = gated_on()
    probs = {name: torch.full((size,), 0.99) for name, size in GROUPS.items()}
    probs["up_0"][:] = 0.001  # its section lives
    probs["up_1"][:] = 0.001  # its section dies
    probs["layers"][1] = 0.001
    gated.log_odds.data = torch.logit(torch.cat(list(probs.values())))
    velocity = torch.ones_like(gated.log_odds)
    with pytest.warns(bp.errors.EmptyGroupWarning, match="up_0"):
        dead = dead_units(gated, 0.01, velocity)
    gated.remove_(dead)
    assert gated.kept() == {"stem": 8, "up_0": 1, "up_1": 0, "up_2": 6, "layers": 2}


def test_all_sections_may_go():
    gated = gated_on()
    gated.log_odds.data[-3:] = -9.0
    dead = dead_units(gated, 0.01, torch.ones_like(gated.log_odds))
    gated.remove_(dead)
    assert gated.kept() == {"stem": 8, "up_0": 0, "up_1": 0, "up_2": 0, "layers": 0}
    assert gated.network.parameter_count() == 4 * 8 + 8 + 8 * 3 + 3


@pytest.mark.parametrize("budget", [{"macs": 0.4}, {"params": 0.3}])
def test_a_budget_is_met_with_sections_and_units_together(linear_rows, budget):
    gated = gated_on(prior=bp.Budget(**budget))
    result = bp.fit(gated, linear_rows, epochs=60, batch_size=32, recipe=RECIPE, progress=False)
    (kind, share), last = next(iter(budget.items())), result.history[-1]
    reached = {"macs": last.macs_percent, "params": last.parameters_percent}[kind] / 100
    assert 0.98 * share <= reached <= share
    cost = bp.count(bp.prune(result).double(), linear_rows[0][:1].double())
    assert cost.parameters == result.gated.network.parameter_count()


def test_prices_from_cost_ask_a_section_for_what_it_costs():
    gated = gated_on(prior=bp.Price.from_cost(nats=100.0, compute=1.0))
    _, up, *_, layers = gated.groups
    dense = 4 * 8 + 3 * 2 * 8 * 6 + 8 * 3
    theta = 0.9
    section = 2 * (8 * theta) * (6 * theta)
    assert gated.prior.price(layers) == pytest.approx(100 * section / dense)
    assert gated.prior.price(up) == pytest.approx(100 * theta * 2 * 8 * theta / dense)
    cheap = gated_on(prior=bp.Price.from_cost(nats=100.0, compute=1.0, layers=0.25))
    assert cheap.prior.price(layers) == pytest.approx(25 * section / dense)
    assert cheap.prior.price(up) == gated.prior.price(up)


def test_an_interrupted_fit_with_dead_sections_goes_on_to_the_same_end(linear_rows, tmp_path):
    def fit(**settings):
        gated = gated_on(price=4.0)
        return bp.fit(gated, linear_rows, batch_size=32, recipe=RECIPE, progress=False, **settings)

    class Interrupted(Exception):
        pass

    def stop(epoch):
        if epoch.epoch == 40:
            raise Interrupted

    whole = fit(epochs=60)
    with pytest.raises(Interrupted):
        fit(epochs=60, checkpoint=tmp_path, on_epoch=stop)
    resumed = fit(epochs=60, checkpoint=tmp_path, resume=True)
    assert whole.history[39].kept["layers"] < 3
    assert resumed.architecture == whole.architecture
    for one, other in zip(bp.prune(whole).parameters(), bp.prune(resumed).parameters(), strict=True):
        assert torch.equal(one, other)


def test_blocks_and_none():
    assert gated_on(layers="blocks").groups[-1].size == 3  # the root module is no block
    assert "layers" not in {group.name for group in gated_on(layers="none").groups}
    with pytest.raises(bp.errors.SettingsError, match="layers='all'"):
        gated_on(layers="all")


def test_copies_and_types_keep_their_sections(linear_rows):
    gated = gated_on()
    gates = {name: torch.ones(size) for name, size in GROUPS.items()}
    gates["layers"][2] = 0.0
    twin = copy.deepcopy(gated).double()
    x = linear_rows[0]
    doubled = {name: z.double() for name, z in gates.items()}
    assert torch.allclose(twin.outputs(x.double(), doubled).float(), gated.outputs(x, gates), atol=1e-5)
    assert replace(gated.groups[-1]).optional
