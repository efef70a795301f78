"""A guide that holds correlation: Pyro agrees, slopes are enumeration's, removal keeps every conditional."""

import math
from typing import ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import SettingsError
from bayesprune.svi import Engine, GateSteps, Recipe, objective
from bayesprune.svi.estimators import GateProblem, all_configurations, find_estimator
from bayesprune.svi.objective import exact_negative_elbo, gate_nats

pytestmark = pytest.mark.usefixtures("double_precision")
SIGMAS = 5.0  # two-sided 6e-7, of each number; at most 60 of them a test: false alarms below 4e-5


class Neighbours(dist.TorchDistribution):
    """Units like their neighbours: log p(z) = J Σ z_i z_{i+1} + h Σ z_i, up to a constant."""

    arg_constraints: ClassVar = {}
    support = dist.constraints.independent(dist.constraints.boolean, 1)

    def __init__(self, units):
        super().__init__(torch.Size(), torch.Size([units]), validate_args=False)

    def log_prob(self, z):
        return 1.2 * (z[..., 1:] * z[..., :-1]).sum(-1) - 0.8 * z.sum(-1)

    def expand(self, batch_shape, _instance=None):
        return self


def chain(group):
    return priors.LinkedGates(torch.full((group.size,), 0.3), torch.full((1, group.size), 0.6), (1,))


def choice(group):
    rate = torch.tensor([0.1, 0.7])[pyro.sample("which", dist.Bernoulli(0.4)).long()]
    return priors.Gates(probs=rate.expand(group.size))


def learnt(group):
    log_odds = pyro.param("log_odds", torch.tensor(-0.4))
    return priors.Gates(logits=log_odds.expand(group.size))


class Hidden:
    """A closed form of a user's: right for independent gates, and so of no use here."""

    def __call__(self, group):
        return Neighbours(group.size)

    def guide(self, group, inclusion_prob):
        """No hyper-sites."""

    def penalty(self, group, inclusion_prob):
        pairs = (inclusion_prob[1:] * inclusion_prob[:-1]).sum()
        return 0.8 * inclusion_prob.sum() - 1.2 * pairs - priors.Gates(probs=inclusion_prob).entropy()


PRIORS = {
    "shipped": priors.BernoulliGates(priors.Fixed(0.3)),
    "Markov chain": chain,
    "own density": lambda group: Neighbours(group.size),
    "own penalty": Hidden(),
    "summed out": choice,
    "with a parameter": learnt,
}


def gated_with(prior, guide=None, seed=0):
    """Four inputs, five hidden units, with links and probabilities at random."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    guide = bp.Autoregressive(lags=(1, 2), rank=1) if guide is None else guide
    gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=30), guide=guide)
    with torch.no_grad():
        gated.log_odds.copy_(0.7 * torch.randn(9))
        for links in gated.links.values():
            links.coupling.uniform_(-0.4, 0.4)
            links.loading.uniform_(-0.2, 0.2)
            links.prior_slope.normal_()
    return gated


def rows():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(30, 4, generator=generator), torch.randint(2, (30,), generator=generator)


def learnable(gated):
    links = [part for links in gated.links.values() for part in (links.coupling, links.loading)]
    return [gated.log_odds, *links, *gated.default_guide.parameters()]


def exact_nats(gated):
    """KL(q ‖ prior) of all gates together, summed over all masks."""
    z = all_configurations(9).double()
    gates = {name: z[:, part] for name, part in gated.slices().items()}
    log_q = sum(gated.gate_guide(name).log_prob(value) for name, value in gates.items())
    return (log_q.exp() * (log_q - gated.gate_priors().log_prob(gates))).sum()


def flat(slopes, like):
    whole = [torch.zeros_like(p) if s is None else s for s, p in zip(slopes, like, strict=True)]
    return torch.cat([part.flatten() for part in whole])


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_nats_of_few_gates_are_exact(prior):
    gated = gated_with(prior)
    moved = learnable(gated)
    nats, exact = gate_nats(gated, gated.inclusion_prob()), exact_nats(gated)
    torch.testing.assert_close(nats, exact, rtol=1e-10, atol=1e-10)
    slopes = [flat(torch.autograd.grad(v, moved, allow_unused=True), moved) for v in (nats, exact)]
    torch.testing.assert_close(*slopes, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_nats_and_slopes_of_the_priors_side_are_unbiased(prior, monkeypatch):
    monkeypatch.setattr(objective, "LINKED_ENUMERATED", 0)
    gated, draws = gated_with(prior), 100
    moved = learnable(gated)
    exact = exact_nats(gated)
    slope = flat(torch.autograd.grad(exact, moved, allow_unused=True), moved)
    seen = []
    torch.manual_seed(1)
    for _ in range(draws):
        value = gate_nats(gated, gated.inclusion_prob())
        slopes = torch.autograd.grad(value, moved, allow_unused=True)
        seen.append(torch.cat([value.detach().reshape(1), flat(slopes, moved)]))
    found = torch.stack(seen)
    expected = torch.cat([exact.detach().reshape(1), slope])
    error = found.std(0) / math.sqrt(draws)
    assert ((found.mean(0) - expected).abs() < 6 * error + 1e-9).all()  # of 37 numbers: 1e-6 a test


def test_pyro_agrees():
    """By enumeration exactly; by 150 draws within the error of their mean."""
    gated, (x, y) = gated_with(chain), rows()
    torch.manual_seed(0)
    exact = exact_negative_elbo(gated, x, y).item()
    torch.manual_seed(0)  # the same draws on the prior's side, which is replaced by its sum over masks
    exact += exact_nats(gated).item() - gate_nats(gated, gated.inclusion_prob()).item()
    by_pyro = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(
        gated.model, config_enumerate(gated.guide, "parallel"), x, y
    )
    assert by_pyro.item() == pytest.approx(exact, abs=1e-9)
    losses = torch.tensor([Trace_ELBO().loss(gated.model, gated.guide, x, y) for _ in range(150)])
    assert abs(losses.mean() - by_pyro.item()) < SIGMAS * losses.std() / math.sqrt(150)
    assert Predictive(gated.model, guide=gated.guide, num_samples=3)(x)["gate/0"].shape[0] == 3


def test_links_are_parameters_of_the_guide_that_pyro_trains():
    gated, (x, y) = gated_with(chain), rows()
    before = gated.links_of("0").coupling.detach().clone()
    svi = pyro.infer.SVI(gated.model, gated.guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    svi.step(x, y)
    assert not torch.equal(before, gated.links_of("0").coupling)


# ---- the likelihood's side


def problem_for(loss, gates, count):
    def nll(drawn, factors=None):
        z = drawn["a"]
        losses = loss(z)
        return losses.expand(*losses.shape[:-1], count) if losses.shape[-1] == 1 else losses

    probs = gates.probs
    generator = torch.Generator().manual_seed(0)
    return GateProblem(
        nll, probs, torch.logit(probs), {"a": len(probs)}, count, generator, linked={"a": gates}
    )


def linked_gates():
    torch.manual_seed(2)
    gates = priors.LinkedGates(
        0.3 + 0.4 * torch.rand(5), 0.3 * torch.rand(2, 5) - 0.15, (1, 3), 0.1 * torch.rand(1, 5)
    )
    torch.testing.assert_close(gates.links()[1], gates.raw_loading)  # not shrunk
    return gates


def slopes_of(name, loss, repeats=60, count=64):
    gates = linked_gates()
    exact = find_estimator("enumeration")(problem_for(loss, gates, 1)).differentiated()
    problem = problem_for(loss, gates, count)
    estimates = [find_estimator(name)(problem) for _ in range(repeats)]
    return exact, torch.stack([estimate.differentiated() for estimate in estimates])


MIXING = torch.randn(5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.double)


def test_reinforce_is_unbiased_for_any_loss():
    exact, found = slopes_of("reinforce", lambda z: (z @ MIXING).square().sum(-1), repeats=300)
    error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - exact).abs() < SIGMAS * error + 1e-12).all()
    assert exact[5:15].abs().max() > 0.2  # links matter to this loss


@pytest.mark.parametrize("name", ["straight_through", "second_order", "curved"])
def test_straight_through_is_right_where_the_loss_adds_up_over_gates(name):
    """Gates' slopes are their weights (curved: as without links); links have no slope, on average."""
    weight = 0.1 * torch.arange(1.0, 6.0)
    exact, found = slopes_of(name, lambda z: z @ weight)
    error = found.std(0) / math.sqrt(len(found))
    torch.testing.assert_close(exact[:5], weight, rtol=0, atol=1e-12)
    assert exact[5:].abs().max() < 1e-12
    if name == "curved":
        assert ((found.mean(0)[:5] - weight).abs() < 0.6 * weight**2 + SIGMAS * error[:5]).all()
        return
    assert ((found.mean(0) - exact).abs() < SIGMAS * error + 1e-9).all()


def test_straight_through_sees_what_two_linked_gates_do_together():
    """Loss z_3 z_4, linked by lag 1: the link's slope is Var(z_3); that of gate 3 lacks c (1 − 2θ_3)."""
    exact, found = slopes_of("straight_through", lambda z: z[..., 3] * z[..., 4], repeats=200)
    error, gates = found.std(0) / math.sqrt(len(found)), linked_gates()
    assert exact[9] > 0.1 and abs(found.mean(0)[9] - exact[9]) < SIGMAS * error[9]
    lacking = gates.links()[0][0, 4] * (1 - 2 * gates.probs[3])  # the bias that the pages name
    assert abs(found.mean(0)[3] + lacking - exact[3]) < SIGMAS * error[3]


@pytest.mark.parametrize("name", ["arm", "concrete"])
def test_estimators_that_draw_gates_apart_are_refused(name):
    with pytest.raises(SettingsError, match=r"hold their correlation .* 'reinforce', which is unbiased"):
        Engine(gated_with(chain), Recipe(estimator=name))


# ---- removal


def test_removal_keeps_every_conditional_of_the_gates_that_stay():
    gated = gated_with(chain)
    gone = torch.tensor([0, 1, 0, 0, 0, 0, 1, 0, 0]).bool()
    masks = {}
    for name, part in gated.slices().items():
        z = all_configurations(part.stop - part.start).double()
        masks[name] = z[(z[:, gone[part]] == 0).all(-1)]
    before = {name: gated.gate_guide(name).conditional(z).probs for name, z in masks.items()}
    gated.remove_(gone)
    for name, part in gated.slices().items():
        z, stay, now = masks[name], ~gone[part], gated.gate_guide(name)
        given = now.conditional(z).probs[..., stay]
        torch.testing.assert_close(given, before[name][..., stay], rtol=0, atol=1e-9)
        p = now.log_prob(z).exp()
        assert p.sum().item() == pytest.approx(1.0, abs=1e-9)
        torch.testing.assert_close(p @ z, gated.by_group(gated.inclusion_prob())[name], rtol=0, atol=1e-9)


def test_the_gates_that_are_there_are_drawn_from_the_same_distribution():
    gated = gated_with(chain)
    gated.remove_(torch.tensor([0, 1, 0, 0, 0, 0, 1, 0, 0]).bool())
    engine = Engine(gated, Recipe(estimator="reinforce"))
    for name, part in gated.slices().items():
        alive = gated.alive[part]
        living = engine._linked_living()[name]
        z = torch.zeros(2 ** int(alive.sum()), len(alive))
        z[:, alive] = all_configurations(int(alive.sum())).double()
        torch.testing.assert_close(
            living.log_prob(z[:, alive]), gated.gate_guide(name).log_prob(z), rtol=0, atol=1e-12
        )


# ---- the rest of the library


def test_masks_of_the_posterior_are_drawn_and_scored_together():
    gated = gated_with(chain)
    torch.manual_seed(0)
    masks = gated.draw_gates(40_000).double()
    for name, part in gated.slices().items():
        own, exact = masks[:, part], gated.gate_guide(name).covariance()
        found = torch.cov(own.T, correction=0)
        assert (found - exact).abs().max() < SIGMAS * 0.25 / math.sqrt(40_000) * 2
    log_q = sum(gated.gate_guide(n).log_prob(masks[:, p]) for n, p in gated.slices().items())
    torch.testing.assert_close(gated.gates_log_prob(masks), log_q.detach())


def test_a_table_links_some_groups_and_a_copy_keeps_them():
    gated = gated_with(chain, guide={"0": bp.Autoregressive(lags=(2,))})
    assert isinstance(gated.gate_guide("input"), priors.Gates)
    again = gated.with_prior(PRIORS["shipped"])
    assert again.guides == gated.guides and again.gate_guide("0").before.lags == (2,)


@pytest.mark.parametrize(
    "guide, said",
    [
        ({"0": "chain"}, "guide of group '0' is 'chain'"),
        ({"nowhere": bp.Autoregressive()}, "nowhere"),
    ],
)
def test_wrong_guides_are_refused(guide, said):
    with pytest.raises(SettingsError, match=said):
        gated_with(chain, guide=guide)


@pytest.mark.parametrize("settings", [{"lags": (0,)}, {"rank": 7}, {"lags": (), "rank": 0}])
def test_wrong_lags_and_ranks_are_refused(settings):
    with pytest.raises(SettingsError, match="Autoregressive"):
        bp.Autoregressive(**settings)


def test_a_training_shrinks_a_linked_model_to_a_plain_network():
    torch.manual_seed(0)
    x = torch.randn(256, 12)
    y = (x[:, :3].sum(-1) > 0).long()
    network = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))
    gated = bp.gate(
        network, x[:1], prior=lambda group: priors.LinkedGates(
            torch.full((group.size,), 0.01), torch.full((1, group.size), 0.5), (1,)
        ),
        likelihood=bp.Categorical(rows=256), guide=bp.Autoregressive(lags=(1,), rank=1),
    )  # fmt: skip
    gates = GateSteps(learning_rate=0.2, momentum=0.5, every=1)
    result = bp.fit(gated, (x, y), epochs=6, batch_size=64, recipe=Recipe(gates=gates), progress=False)
    assert result.architecture[0] < 12 and gated.links_of("input").coupling.abs().max() == 0
    assert any(links.coupling.abs().max() > 0.02 for links in result.at_decision.links.values())
    small = bp.prune(result)
    assert bp.evaluate(small, (x, y), result.likelihood).score < 20
    result.posterior("decision").to_arviz(draws=10)


def test_near_certain_gates_leave_everything_finite(monkeypatch):
    """Slopes of rare gates are noise of hundreds of nats: the control variate stays within its bound."""
    monkeypatch.setattr(objective, "LINKED_ENUMERATED", 0)
    gated, (x, y) = gated_with(PRIORS["own density"]), rows()
    with torch.no_grad():
        gated.log_odds.copy_(8.0 * torch.tensor([1.0, -1.0, 1.0] * 3))
    gates = GateSteps(learning_rate=0.1, momentum=0.5, every=1)
    engine = Engine(gated, Recipe(gates=gates), seed=0)
    state = engine.init()
    torch.manual_seed(0)
    for _ in range(60):
        state, _ = engine.step(state, (x, y))
    for links in gated.links.values():
        assert links.coupling.isfinite().all() and links.prior_slope.abs().max() <= 50
    assert gated.log_odds.isfinite().all()


def test_units_that_are_gone_or_certain_have_finite_slopes_and_cost_nothing():
    """Summed over all masks: those that cannot be are left out, with their logarithms."""
    theta = torch.tensor([0.6, 0.0, 0.3, 1.0], requires_grad=True)
    links = torch.full((1, 4), 0.4, requires_grad=True)
    nats = objective.total_correlation(priors.LinkedGates(theta, links, (1,), validate_args=False))
    slopes = torch.autograd.grad(nats, [theta, links])
    assert all(bool(slope.isfinite().all()) for slope in slopes)
    assert nats.item() == pytest.approx(0.0, abs=1e-12)  # no two undecided gates are neighbours
