"""The structured guide: an ordinary Pyro guide, with the numbers of hand computation and enumeration."""

import copy
import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from scipy.stats import chi2
from torch import nn

import bayesprune as bp
from bayesprune.errors import PriorError, SettingsError
from bayesprune.programs import load_inference
from bayesprune.svi.guides import AutoregressiveGates, LeaveOneOutELBO, StructuredGuide
from tests.svi.guides.regressions import (
    KEEP,
    NOISE,
    SLAB,
    configurations,
    conjugate,
    enumerate_exactly,
    gate,
    orthogonal,
    rows_of,
)

pytestmark = pytest.mark.usefixtures("double_precision")
FALSE_ALARM = 1e-5  # of each randomised test
SIGMAS = 4.42


@pytest.fixture(autouse=True)
def param_store():
    """Nothing ever enters Pyro's global store."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    assert len(pyro.get_param_store()) == 0


def by_enumeration(gated, guide, x, y):
    return TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(
        gated.model, config_enumerate(guide, "parallel"), x, y
    )


def put_exact_weights_(guide, x, y):
    """Pseudo-rows that say what the data say, in units of slab and noise: RᵀR = XᵀX and Rᵀt = Xᵀy."""
    root = torch.linalg.cholesky(SLAB**2 * x.T @ x / NOISE**2)
    guide.weights.matrix.data = root.T / guide.weights.unit
    target = torch.linalg.solve_triangular(root, (SLAB * x.T @ y / NOISE**2).unsqueeze(1), upper=False)
    guide.weights.target.data = target.squeeze(1) / guide.weights.unit


# ---- gates


def random_gates(units=4, batch=()):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(*batch, units, generator=generator)
    return AutoregressiveGates(logits, 2 * torch.randn(units, units, generator=generator))


def test_autoregressive_gates_are_a_chain_of_bernoullis():
    gates, z = random_gates(), configurations(4)
    assert gates.log_prob(z).exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    for row in z:
        by_hand = 1.0
        for i in range(4):
            p = torch.sigmoid(gates.logits[i] + sum(gates.coupling[i, j] * row[j] for j in range(i)))
            by_hand = by_hand * (p if row[i] > 0 else 1 - p)
        assert gates.log_prob(row).exp().item() == pytest.approx(by_hand.item(), rel=1e-12)


def test_autoregressive_gates_draw_what_they_score():
    gates, draws = random_gates(), 20_000
    counts = torch.zeros(16)
    place = (gates.sample((draws,)) @ (2.0 ** torch.arange(4))).long()
    counts.index_add_(0, place, torch.ones(draws))
    expected = draws * gates.log_prob(configurations(4)).exp()
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(FALSE_ALARM, df=15)


def test_without_coupling_they_are_gates_and_expand_as_they_do():
    logits = torch.randn(5, 3)
    ours, theirs = AutoregressiveGates(logits, torch.zeros(3, 3)), bp.priors.Gates(logits=logits)
    z = ours.sample((7,))
    assert z.shape == (7, 5, 3)
    torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z))
    assert torch.equal(ours.enumerate_support(False), theirs.enumerate_support(False))
    assert ours.expand((2, 5)).sample().shape == (2, 5, 3)


def test_wrong_couplings_are_refused():
    with pytest.raises(PriorError, match=r"\(units, units\), and got \(3,\) and \(2, 2\)"):
        AutoregressiveGates(torch.zeros(3), torch.zeros(2, 2))


# ---- weights given gates


def test_pseudo_rows_hold_the_conjugate_posterior_of_every_mask():
    x, y = rows_of(4, correlation=0.7)
    guide = StructuredGuide(gate(x))
    put_exact_weights_(guide, x, y)
    for z in configurations(4):
        q = guide.weights(guide.weight_mask({"input": z}))
        mean, covariance = conjugate(x, y, z)
        torch.testing.assert_close(q.mean, mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(q.covariance_matrix, covariance, rtol=1e-9, atol=1e-9)


def test_a_weight_behind_a_closed_gate_has_its_prior():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    gated = bp.gate(
        network, torch.zeros(1, 3), prior=bp.priors.BernoulliGates(bp.priors.Fixed(0.5)),
        likelihood=bp.Gaussian(rows=50), weights=bp.priors.NormalWeights(scale=0.7),
    )  # fmt: skip
    guide = StructuredGuide(gated)
    torch.nn.init.normal_(guide.weights.matrix)
    torch.nn.init.normal_(guide.weights.target)
    inputs, hidden = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 1.0, 1.0])
    mask = guide.weight_mask({"input": inputs, "0": hidden})
    by_hand = [torch.outer(hidden, inputs).flatten(), hidden, hidden.repeat(2), torch.ones(2)]
    assert torch.equal(mask, torch.cat(by_hand))
    q = guide.weights(mask)
    closed = mask == 0
    assert q.mean[closed].abs().max() < 1e-12 and q.mean[~closed].abs().min() > 0
    torch.testing.assert_close(q.covariance_matrix[closed][:, closed], 0.49 * torch.eye(int(closed.sum())))
    assert q.covariance_matrix[closed][:, ~closed].abs().max() < 1e-12


# ---- the guide


def elbo_by_hand(guide, x, y):
    """Σ_z q(z) (E log p(y | z, w) + log p(z)/q(z) − KL(q(w|z) ‖ p(w))), every expectation in closed form."""
    total = 0.0
    a, coupling = guide.log_odds, guide.coupling
    for z in configurations(2):
        on = torch.stack([torch.sigmoid(a[0]), torch.sigmoid(a[1] + coupling[1, 0] * z[0])])
        share = torch.where(z > 0, on, 1 - on).prod()
        prior = torch.where(z > 0, torch.tensor(KEEP), torch.tensor(1 - KEEP)).log().sum()
        rows = guide.weights.matrix * guide.weights.unit * z
        covariance = SLAB**2 * torch.linalg.inv(rows.T @ rows + torch.eye(2))
        mean = covariance @ rows.T @ guide.weights.target * guide.weights.unit / SLAB
        seen = x * z
        squares = (y - seen @ mean).square().sum() + torch.trace(seen @ covariance @ seen.T)
        fit = -squares / (2 * NOISE**2) - len(x) * math.log(NOISE * math.sqrt(2 * math.pi))
        kl = 0.5 * (
            torch.trace(covariance) / SLAB**2 + mean @ mean / SLAB**2 - 2
            - torch.logdet(covariance) + 2 * math.log(SLAB**2)
        )  # fmt: skip
        total = total + share * (fit + prior - share.log() - kl)
    return total


@pytest.fixture
def two_inputs():
    x, y = rows_of(2, correlation=0.5)
    gated = gate(x)
    guide = StructuredGuide(gated)
    torch.manual_seed(1)
    for parameter, spread in ((guide.log_odds, 1.0), (guide.coupling, 1.0), (guide.weights.matrix, 0.5)):
        parameter.data += spread * torch.randn_like(parameter)
    guide.weights.target.data += 0.5
    return gated, guide, x, y.unsqueeze(1)


@pytest.mark.parametrize("elbo", ["Trace_ELBO", "TraceEnum_ELBO", "LeaveOneOutELBO"])
def test_elbo_is_the_one_of_hand_computation(elbo, two_inputs):
    gated, guide, x, y = two_inputs
    exact = -elbo_by_hand(guide, x, y.squeeze(1)).item()
    losses = []
    for _ in range(400):
        if elbo == "TraceEnum_ELBO":
            losses.append(by_enumeration(gated, guide, x, y).item())
        elif elbo == "Trace_ELBO":
            losses.append(Trace_ELBO().loss(gated.model, guide, x, y))
        else:
            losses.append(LeaveOneOutELBO(draws=4).loss(gated.model, guide, x, y))
    losses = torch.tensor(losses)
    assert abs(losses.mean() - exact) < SIGMAS * losses.std() / len(losses) ** 0.5


@pytest.mark.parametrize("elbo", ["TraceEnum_ELBO", "LeaveOneOutELBO"])
def test_gradients_are_those_of_hand_computation(elbo, two_inputs):
    gated, guide, x, y = two_inputs
    parameters = [guide.log_odds, guide.coupling, guide.weights.matrix, guide.weights.target]
    exact = torch.autograd.grad(-elbo_by_hand(guide, x, y.squeeze(1)), parameters)
    draws = []
    for _ in range(400):
        loss = (
            by_enumeration(gated, guide, x, y)
            if elbo == "TraceEnum_ELBO"
            else LeaveOneOutELBO(draws=8).differentiable_loss(gated.model, guide, x, y)
        )
        draws.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    draws, exact = torch.stack(draws), torch.cat([g.flatten() for g in exact])
    off = (draws.mean(0) - exact).abs()
    assert bool((off <= 5.2 * draws.std(0) / len(draws) ** 0.5 + 1e-9).all())  # 12 numbers, 1e-5 / 12 each


def test_elbo_is_the_evidence_where_the_guide_is_the_posterior():
    """Orthogonal inputs: every draw of the exact guide gives log p(y), without variance."""
    x, y = orthogonal(4, rows=30)
    exact, evidence = enumerate_exactly(x, y)
    gated = gate(x)
    guide = StructuredGuide(gated, gates="independent")
    put_exact_weights_(guide, x, y)
    guide.log_odds.data = torch.logit(exact)
    for _ in range(5):
        loss = Trace_ELBO().loss(gated.model, guide, x, y.unsqueeze(1))
        assert -loss == pytest.approx(evidence.item(), abs=1e-8)


def test_sites_are_those_of_the_model_and_predictive_runs():
    x, y = rows_of(3)
    gated = gate(x)
    guide = StructuredGuide(gated)
    trace = poutine.trace(guide).get_trace(x, y)
    mine = {n for n, s in trace.nodes.items() if s["type"] == "sample" and not s["infer"].get("is_auxiliary")}
    model = poutine.trace(gated.model).get_trace(x, y)
    assert mine == {
        n for n, s in model.nodes.items() if s["type"] == "sample" and not s["is_observed"] and n != "rows"
    }
    draws = Predictive(gated.model, guide=guide, num_samples=50)(x)
    assert draws["y"].shape[0] == 50 and draws["y"].numel() == 50 * len(x)


@pytest.mark.parametrize("vectorised", [False, True])
def test_matrices_of_weights_and_hyper_sites_go_through_every_elbo(vectorised):
    """Two layers, one group of gates after the other, a price: the ELBOs agree within their noise."""
    torch.manual_seed(0)
    x, network = torch.randn(20, 2), nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    y = torch.stack([x[:, 0], x.prod(1)], 1)
    gated = bp.gate(
        network, x[:1], prior=bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0)),
        likelihood=bp.Gaussian(rows=20), weights=bp.priors.NormalWeights(scale=0.5),
    )  # fmt: skip
    guide = StructuredGuide(gated)
    guide.coupling.data.normal_()
    guide.log_odds.data.normal_()
    sampled = LeaveOneOutELBO(draws=32) if vectorised else Trace_ELBO(num_particles=32)
    one = torch.tensor([by_enumeration(gated, guide, x, y).item() for _ in range(15)])
    two = torch.tensor([sampled.loss(gated.model, guide, x, y) for _ in range(15)])
    noise = ((one.var() + two.var()) / 15) ** 0.5
    assert abs(one.mean() - two.mean()) < 7.0 * noise  # Student's t, 28 degrees of freedom: under 1e-5


def test_svi_of_pyro_trains_it_and_leaves_the_model_alone():
    x, y = rows_of(3)
    gated = gate(x)
    before = copy.deepcopy(gated.state_dict())
    guide = StructuredGuide(gated)
    svi = SVI(gated.model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(num_particles=2))
    losses = [svi.step(x, y) for _ in range(150)]
    assert sum(losses[-30:]) < sum(losses[:30])
    assert all(torch.equal(value, before[name]) for name, value in gated.state_dict().items())


def test_marginals_by_draws_are_those_by_enumeration(monkeypatch):
    guide = StructuredGuide(gate(rows_of(6)[0]))
    guide.coupling.data.normal_(generator=torch.Generator().manual_seed(0)).mul_(2)
    exact = guide.inclusion_prob().detach()
    monkeypatch.setattr("bayesprune.svi.guides.structured.MOST_ENUMERABLE_UNITS", 5)
    assert (guide.inclusion_prob() - exact).abs().max() < SIGMAS * 0.5 / 2000**0.5


def fit(gated, x, y, epochs, seed=0):
    return load_inference("svi_structured").infer(
        gated, bp.data.Split(x, y), epochs=epochs, batch_size=len(x), seed=seed, recipe=None, device="cpu",
        checkpoint=None, resume=False, progress=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("correlation", "worst"), [pytest.param(0.0, 0.01, marks=pytest.mark.nightly), (0.9, 0.05)]
)
def test_inclusion_probabilities_are_the_enumerated_ones(correlation, worst):
    x, y = rows_of(5, correlation=correlation)
    exact, evidence = enumerate_exactly(x, y)
    assert ((exact > 0.1) & (exact < 0.9)).sum() >= 3  # not a trivial one
    last = fit(gate(x), x, y, epochs=400).history[-1]
    assert (last.inclusion - exact).abs().mean() < worst
    assert last.elbo == pytest.approx(evidence.item(), abs=0.5)


@pytest.mark.nightly
def test_more_gates_than_can_be_enumerated_are_drawn():
    """Thirty orthogonal inputs: the exact posterior is a product, each factor an enumeration of its own."""
    x, y = orthogonal(30)
    exact = torch.stack([enumerate_exactly(x[:, i : i + 1], y)[0] for i in range(30)]).squeeze(1)
    last = fit(gate(x), x, y, epochs=400).history[-1]
    assert (last.inclusion - exact).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda g: g.remove_(torch.tensor([True, False, False])), "1 units were removed"),
        (lambda g: setattr(g, "unit_noise", {"input": 0.1}), "unit_noise"),
        (lambda g: setattr(g, "weights", bp.priors.NormalWeights(masked=True)), "masked=False"),
    ],
)
def test_models_that_it_is_no_guide_of_are_refused(change, says):
    gated = gate(rows_of(3)[0])
    change(gated)
    with pytest.raises(SettingsError, match=says):
        StructuredGuide(gated)


@pytest.mark.parametrize("likelihood", [bp.Bernoulli, bp.Poisson, bp.Categorical])
def test_targets_that_no_one_quadratic_form_serves_are_refused(likelihood):
    network, prior = nn.Sequential(nn.Linear(3, 2)), bp.priors.BernoulliGates(bp.priors.Fixed(0.3))
    gated = bp.gate(network, torch.zeros(1, 3), prior=prior, likelihood=likelihood(rows=20))
    with pytest.raises(SettingsError, match=f"is {likelihood.__name__}.*integrate_weights"):
        StructuredGuide(gated)


def test_all_that_is_wrong_is_said_at_once():
    x = torch.zeros(1, 1200)
    with pytest.raises(SettingsError, match=r"1,200 weights(.|\n)*gates='no'(.|\n)*weights='none'"):
        StructuredGuide(gate(x), gates="no", weights="none")
    with pytest.raises(SettingsError, match="at least 2 draws"):
        LeaveOneOutELBO(draws=1)
