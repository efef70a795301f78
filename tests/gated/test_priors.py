"""Users' own priors: a function, a class with its guide, a module with parameters; and what is refused."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import LikelihoodError, NothingToGateError, PriorError, SettingsError
from bayesprune.svi.objective import gate_nats
from tests.svi.small import EXACT, Learned, OwnGuide, coupled, shared_rate, small_gated


def gate(prior, **settings):
    network = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 2))
    settings = {"likelihood": bp.Categorical(rows=64), **settings}
    return bp.gate(network, torch.zeros(1, 3), prior=prior, **settings)


def data():
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    return x, (x[:, 0] > 0).long()


def hierarchical(group):
    """Two hyper-sites, one below the other, positive and vector-valued."""
    scale = pyro.sample(f"scale/{group.name}", dist.HalfNormal(1.0))
    tilt = pyro.sample(f"tilt/{group.name}", dist.Normal(torch.zeros(group.size), scale).to_event(1))
    return priors.Gates(logits=tilt - 1.0)


CUSTOM = {
    "default guide": shared_rate,
    "own guide": OwnGuide(),
    "module with parameters": Learned(),
    "hierarchical": hierarchical,
    "coupled gates": coupled,
    "plain Pyro Bernoulli": lambda group: dist.Bernoulli(torch.full((group.size,), 0.2)),
    "its event": lambda group: dist.Bernoulli(torch.full((group.size,), 0.2)).to_event(1),
    "per group": priors.PerGroup({"input": shared_rate, "*": EXACT["flattening"]}),
}


@pytest.mark.parametrize("prior", CUSTOM.values(), ids=CUSTOM)
def test_own_priors_have_matching_sites_and_an_elbo(prior):
    gated, (x, y) = gate(prior), data()
    model = poutine.trace(gated.model).get_trace(x, y)
    guide = poutine.trace(gated.guide).get_trace(x, y)
    latent = {n for n, s in model.nodes.items() if s["type"] == "sample" and not s["is_observed"]}
    assert {n for n, s in guide.nodes.items() if s["type"] == "sample"} - {"rows"} == latent - {"rows"}
    loss = Trace_ELBO().differentiable_loss(gated.model, gated.guide, x, y)
    assert torch.isfinite(loss)
    assert len(pyro.get_param_store()) == 0


@pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")
@pytest.mark.parametrize("prior", CUSTOM.values(), ids=CUSTOM)
def test_own_priors_train_prune_and_copy(prior):
    recipe = bp.Recipe(
        gates=bp.GateSteps(learning_rate=0.3, every=1), shrink=bp.Shrink(every=4), learning_rate=1e-2
    )
    result = bp.fit(
        gate(copy.deepcopy(prior)), data(), epochs=5, batch_size=16, recipe=recipe, progress=False
    )
    small = bp.prune(result)
    assert small(data()[0]).isfinite().all() and result.undecided == 0
    assert copy.deepcopy(result.gated).kept() == result.gated.kept()


def test_default_guide_learns_a_hyper_posterior():
    """All gates open: the rate's posterior moves up from its prior's mean, whatever the weights do."""
    gated, (x, y) = gate(shared_rate, initial_inclusion=0.999), data()
    start = gated.default_guide.loc["rate/0"].item()
    optimiser = torch.optim.Adam(gated.default_guide.parameters(), lr=0.02)
    torch.manual_seed(0)
    for _ in range(200):
        optimiser.zero_grad()
        Trace_ELBO().differentiable_loss(gated.model, gated.guide, x, y).backward()
        optimiser.step()
    # conjugate: Beta(2 + 4, 1.5), mean 0.8
    assert gated.default_guide.loc["rate/0"].item() > start + 0.5
    assert torch.sigmoid(gated.default_guide.loc["rate/0"]).item() == pytest.approx(0.8, abs=0.1)


def test_parameters_of_a_module_belong_to_the_model():
    gated = gate(Learned())
    assert "prior.log_odds" in dict(gated.named_parameters())
    assert gate(shared_rate).state_dict().keys() >= {
        "default_guide.loc.rate/0",
        "default_guide.log_scale.rate/0",
    }


class LearnedUnderAPrior(Learned):
    """What groups share is a parameter, and its own prior a factor."""

    def forward(self, group):
        pyro.factor(f"hyper/{group.name}", dist.Normal(-2.0, 1.0).log_prob(self.log_odds))
        return super().forward(group)


def test_a_factor_of_the_prior_counts_and_gates_without_a_warning():
    with_factor, without = gate(LearnedUnderAPrior()), gate(Learned())
    probs = with_factor.inclusion_prob()
    extra = gate_nats(with_factor, probs) - gate_nats(without, probs)
    assert extra.item() == pytest.approx(-2 * dist.Normal(-2.0, 1.0).log_prob(torch.tensor(-0.5)).item())
    x, y = data()
    assert torch.isfinite(Trace_ELBO().differentiable_loss(with_factor.model, with_factor.guide, x, y))


def test_discrete_hyper_site_without_end_needs_a_guide():
    def mixture(group):
        which = pyro.sample(f"which/{group.name}", dist.Geometric(0.5))
        return priors.Gates(probs=(1 / (2 + which)).expand(group.size))

    with pytest.raises(PriorError, match=r"'which/input'.*discrete.*guide\(group, inclusion_prob\)"):
        gate(mixture)


WRONG = {
    "number": lambda group: 0.5,
    "tensor": lambda group: torch.full((group.size,), 0.5),
    "scalar": lambda group: dist.Bernoulli(0.5),
    "other size": lambda group: priors.Gates(probs=torch.full((group.size + 1,), 0.5)),
    "nothing": lambda group: None,
}


@pytest.mark.parametrize("prior", WRONG.values(), ids=WRONG)
def test_wrong_return_is_named(prior):
    with pytest.raises(PriorError, match=r"'input', which has 3 gates: return a distribution"):
        gate(prior)


def test_likelihood_must_be_one():
    with pytest.raises(LikelihoodError, match=r"is not a likelihood.*rows="):
        gate(EXACT["fixed"], likelihood=bp.Categorical)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, {"0": 1.5}])
def test_initial_inclusion_out_of_range(value):
    with pytest.raises(SettingsError, match="initial_inclusion of group"):
        gate(EXACT["fixed"], initial_inclusion=value)


def test_initial_inclusion_by_group_and_nothing_to_gate():
    gated = gate(EXACT["fixed"], initial_inclusion={"inp*": 0.3})
    assert gated.inclusion_prob().tolist() == pytest.approx([0.3] * 3 + [0.9] * 4)
    with pytest.raises(NothingToGateError):
        gate(EXACT["fixed"], exclude=("input", "0"))


def test_price_missing_for_a_group_is_found_at_once():
    with pytest.raises(PriorError, match="No price for 'input'"):
        gate(priors.BernoulliGates(priors.Flattening({"0": 1.0})))


def test_gate_copies_the_network():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    before = copy.deepcopy(network.state_dict())
    gated = bp.gate(network, torch.zeros(1, 3), prior=EXACT["fixed"], likelihood=bp.Categorical(rows=64))
    with torch.no_grad():
        for parameter in gated.parameters():
            parameter.add_(1.0)
    assert not network.training and gated.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


LIKELIHOODS = {
    "categorical": (lambda: bp.Categorical(rows=20), lambda: torch.randint(2, (20,))),
    "gaussian": (lambda: bp.Gaussian(rows=20), lambda: torch.randn(20, 2)),
    "gaussian, known scale": (
        lambda: bp.Gaussian(rows=20, scale=0.5, learn_scale=False),
        lambda: torch.randn(20, 2),
    ),
    "bernoulli": (lambda: bp.Bernoulli(rows=20), lambda: torch.randint(2, (20, 2))),
    "poisson": (lambda: bp.Poisson(rows=20), lambda: torch.randint(5, (20, 2))),
    "own": (
        lambda: bp.Own(rows=20, distribution=lambda out: dist.StudentT(4.0, out[..., 0], 1.0)),
        lambda: torch.randn(20),
    ),
}


@pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")
@pytest.mark.parametrize("make, targets", LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_every_likelihood_through_pyro_and_through_fit(make, targets):
    torch.manual_seed(0)
    x, y = torch.randn(20, 3), targets()
    gated = gate(EXACT["fixed"], likelihood=make())
    gates = {g.name: torch.ones(g.size) for g in gated.groups}
    trace = poutine.trace(poutine.condition(gated.model, data={f"gate/{n}": z for n, z in gates.items()}))
    weights = {f"weight/{n}": p.detach() for n, p in gated.weight_tensors().items()}
    trace = poutine.trace(
        poutine.condition(gated.model, data={**{f"gate/{n}": z for n, z in gates.items()}, **weights})
    )
    y_site = trace.get_trace(x, y).nodes["y"]
    nll = gated.likelihood.nll(gated.outputs(x, gates), y)
    torch.testing.assert_close(-y_site["fn"].log_prob(y_site["value"]), nll)
    drawn = poutine.trace(gated.model).get_trace(x).nodes["y"]["value"]
    assert drawn.shape[0] == 20
    result = bp.fit(gated, (x, y), epochs=2, batch_size=10, progress=False)
    assert torch.isfinite(torch.tensor(result.history[-1].elbo))
    assert bp.evaluate(result.gated, (x, y)).name == gated.likelihood.score_name


def test_learned_noise_scale_moves():
    x = torch.randn(20, 3)
    gated = gate(EXACT["fixed"], likelihood=bp.Gaussian(rows=20))
    result = bp.fit(
        gated,
        (x, torch.randn(20, 2) * 0.1),
        epochs=20,
        batch_size=10,
        progress=False,
        recipe=bp.Recipe(gates=bp.GateSteps()),
    )
    assert result.gated.likelihood.log_scale < gated.likelihood.log_scale


def test_one_dimensional_targets_of_a_gaussian():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    gated = bp.gate(network, torch.zeros(1, 3), prior=EXACT["fixed"], likelihood=bp.Gaussian(rows=9))
    x, y = torch.randn(9, 3), torch.randn(9)
    site = poutine.trace(gated.model).get_trace(x, y).nodes["y"]
    assert site["fn"].log_prob(site["value"]).shape == (9,)


def test_weights_of_the_prior_are_taken_up():
    gated = gate(priors.SpikeAndSlab(slab_scale=0.3))
    assert gated.weights.masked and gated.weights.scale == 0.3 and len(gated.log_scales) == 4
    assert small_gated(EXACT["fixed"]).weights.posterior == "delta"
