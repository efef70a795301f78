"""Weights with a posterior in networks of any form: step and Pyro agree; surgery cuts scales too."""

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from pyro.infer import Predictive, Trace_ELBO
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import RemovalError
from bayesprune.posterior import to_arviz
from bayesprune.svi import Engine, GateSteps, Recipe
from bayesprune.svi.objective import gate_nats, weight_nats
from tests.gated.graphs import INPUTS, Convolutions, OwnAttention, Recurrence, Residual, Tied, Tokens
from tests.reference import negative_elbo_by_pyro

pytestmark = pytest.mark.usefixtures("double_precision")
FALSE_ALARM = 1e-5  # of each randomised test: |error| > 4.42 standard errors of a Gaussian
SIGMAS = 4.42
ROWS = 6
PLAIN = Recipe(
    estimator="enumeration", gates=GateSteps(learning_rate=1e-3, momentum=0.0, clip=1e3, every=1, bound=50.0)
)
NETWORKS = pytest.mark.parametrize("kind", INPUTS, ids=lambda kind: kind.__name__)
FEW_GATES = pytest.mark.parametrize("kind", [Residual, Convolutions, Tokens, Tied], ids=lambda k: k.__name__)


@cache
def _gated_of(kind, masked):
    torch.manual_seed(3)
    weights = priors.NormalWeights(scale=0.7, posterior="normal", masked=masked, initial_scale=0.2)
    gated = bp.gate(
        kind().double(), INPUTS[kind](2), prior=priors.SpikeAndSlab(slab_scale=0.7),
        likelihood=bp.Categorical(rows=40), weights=weights,
    )  # fmt: skip
    gated.log_odds.data.normal_()
    for log_scale in gated.log_scales.values():
        log_scale.data.add_(0.3 * torch.randn_like(log_scale))
    return gated


def gated_of(kind, masked=True, removed=False):
    """A gated model with drawn log-odds and drawn posterior scales; a unit of the first group may be gone."""
    gated = copy.deepcopy(_gated_of(kind, masked))
    if removed:
        dead = torch.zeros_like(gated.alive)
        dead[1] = True
        gated.remove_(dead)
        assert int((~gated.alive).sum()) > 0 and all(gated.kept().values())
    return gated


def batch(kind, classes=None):
    x = INPUTS[kind](ROWS)
    return x, torch.randint(classes or (4 if kind is Tied else 2), (ROWS,))


class Shifts:
    """Noise that is known: every weight is moved by the same tensor whenever it is asked for."""

    def __init__(self, gated):
        weights = gated.weight_tensors().items()
        self.moves = {name: 0.3 * torch.randn_like(tensor).detach() for name, tensor in weights}
        self.drawn, self.at_outputs = [], []

    def draw(self, name, weight):
        self.drawn.append(name)
        return weight + self.moves[name]

    def linear(self, names, x, weight, bias):
        assert x.ndim == 2 and len(x) == ROWS
        self.at_outputs += [name for name in names if name]
        return F.linear(
            x, weight + self.moves[names[0]], bias if bias is None else bias + self.moves[names[1]]
        )


# ---- which weights, and where noise gets in


@NETWORKS
@pytest.mark.parametrize(
    ("training", "removed"),
    [(True, False), (False, True)],
    ids=["training", "evaluation after a removal"],
)
def test_noise_moves_weights_as_pyros_draws_do(kind, training, removed):
    """Pyro hands drawn weights to the network; noise inside the graph does just that, under any gates."""
    gated = gated_of(kind, removed=removed).train(training)
    x, _ = batch(kind)
    gates = {g.name: torch.bernoulli(torch.full((ROWS, g.size), 0.7)) for g in gated.groups}
    noise = Shifts(gated)
    weights = {name: tensor + noise.moves[name] for name, tensor in gated.weight_tensors().items()}
    with torch.no_grad():
        twin = copy.deepcopy(gated)  # batch norms in training move their statistics
        expected = gated.outputs(x, gates, weights)
        torch.testing.assert_close(twin.network(x, gates, noise), expected, rtol=1e-12, atol=1e-12)
        assert (expected - gated.outputs(x, gates)).abs().max() > 1e-3
    assert sorted(noise.drawn + noise.at_outputs) == sorted(weights)  # every one, and once


AT_OUTPUTS = {
    Residual: {"stem", "up", "down", "head"},
    Convolutions: {"head"},
    Tokens: {"head"},
    Tied: set(),
    OwnAttention: {"up", "head"},
    Recurrence: {"head"},
}


@NETWORKS
def test_only_a_map_of_one_vector_a_row_gets_noise_at_its_outputs(kind):
    """A linear map of tokens has one weight for all of them: independent noise would be another model."""
    gated = gated_of(kind)
    noise = Shifts(gated)
    gated.network(batch(kind)[0], {}, noise)
    assert {name.rpartition(".")[0] for name in noise.at_outputs} == AT_OUTPUTS[kind]


@NETWORKS
def test_weights_are_what_products_sum_with(kind):
    names = set(gated_of(kind).weight_tensors())
    whole = set(dict(kind().named_parameters()))
    none = {name for name in whole if name.startswith(("norm", "positions"))}
    assert names == whole - none


class SharedLater(nn.Module):
    """One weight under two names, read in two places; one weight of which a part never changes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.wide, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.second.weight = self.first.weight
        self.part, self.scale = nn.Parameter(torch.randn(1, 3)), nn.Parameter(torch.ones(3))
        self.register_buffer("rest", torch.randn(2, 3))

    def forward(self, x):
        x = self.second(self.first(x).tanh()) * self.scale
        return self.head(self.wide(F.linear(x, torch.cat([self.part, self.rest]))).tanh())


def test_shared_and_assembled_weights_are_drawn_once():
    gated = bp.gate(
        SharedLater().double(), torch.zeros(2, 3), prior=priors.SpikeAndSlab(0.7),
        likelihood=bp.Categorical(rows=9),
    )  # fmt: skip
    noise = Shifts(gated)
    gated.network(torch.randn(ROWS, 3), {}, noise)
    assert sorted(noise.drawn) == ["first.bias", "first.weight", "part", "second.bias"]
    assert sorted(noise.at_outputs) == ["head.bias", "head.weight", "wide.bias", "wide.weight"]


# ---- the step and Pyro


CASES = [
    *((kind, True, False) for kind in (Residual, Convolutions, Tokens, Tied)),
    *((kind, True, True) for kind in (Residual, Convolutions, Tied)),
    *((kind, False, False) for kind in (Residual, Tied)),
]


@pytest.mark.parametrize(("kind", "masked", "removed"), CASES)
def test_prior_side_is_pyros(kind, masked, removed):
    """All of the ELBO but the likelihood, and its gradients: two points integrate each divergence exactly."""
    gated = gated_of(kind, masked, removed)
    x, y = batch(kind)
    probs = gated.inclusion_prob()
    fused = gate_nats(gated, probs) + weight_nats(gated, probs)
    slow = negative_elbo_by_pyro(gated, x, y, without=("y",))
    assert fused.item() == pytest.approx(slow.item(), abs=1e-6)
    parameters = [p for p in gated.parameters() if p.requires_grad]
    ours, theirs = (torch.autograd.grad(v, parameters, allow_unused=True) for v in (fused, slow))
    for one, other in zip(ours, theirs, strict=True):
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_a_weight_is_there_where_all_that_it_belongs_to_is():
    """In a section both gates must be open: that of the unit which it makes, and the section's."""
    gated = gated_of(Residual)
    z = {g.name: torch.rand(g.size) for g in gated.groups}
    unit, section, stream = z["up"], z["layers"], z["stem"]
    for tensor, share in {"up": unit * section, "down": stream * section, "stem": stream}.items():
        assert torch.allclose(gated.share_left(f"{tensor}.weight", z), share[:, None])
        assert torch.allclose(gated.share_left(f"{tensor}.bias", z), share)
    assert gated.share_left("head.weight", z) is None


@FEW_GATES
def test_the_step_takes_the_slabs_price_into_the_gates(kind):
    gated = gated_of(kind)
    probs = gated.inclusion_prob().detach().requires_grad_()
    (expected,) = torch.autograd.grad(gate_nats(gated, probs) + weight_nats(gated, probs), probs)
    engine = Engine(gated, PLAIN)
    velocity = engine._move_gates(engine.init(), torch.zeros(int(gated.alive.sum())))
    torch.testing.assert_close(velocity, expected)


@pytest.mark.parametrize("kind", [Residual, Tokens, Tied], ids=lambda kind: kind.__name__)
def test_the_step_sees_the_outputs_that_pyro_draws(kind):
    """First and second moments of a row's outputs, over weights from the step and from Pyro's guide."""
    gated = gated_of(kind).eval()
    x, draws = batch(kind)[0][:1], 1000
    gates = {g.name: torch.ones(1, g.size) for g in gated.groups}
    noise, scales = Engine(gated, PLAIN, seed=1)._weight_noise, gated.log_scales_by_tensor()
    generator = torch.Generator().manual_seed(2)

    def of_pyro():
        means = gated.weight_tensors().items()
        drawn = {n: w + scales[n].exp() * torch.randn(w.shape, generator=generator) for n, w in means}
        return gated.outputs(x, gates, drawn)[0]

    with torch.no_grad():
        ours = torch.stack([gated.network(x, gates, noise)[0] for _ in range(draws)])
        theirs = torch.stack([of_pyro() for _ in range(draws)])
    for power in (lambda v: v, lambda v: (v[:, :, None] * v[:, None]).flatten(1)):
        one, other = power(ours), power(theirs)
        error = (one.var(0) / draws + other.var(0) / draws).sqrt()
        assert bool(((one.mean(0) - other.mean(0)).abs() < SIGMAS * error).all())
    assert bool((ours.std(0) > 0.05).all())


def test_pyro_runs_on_it():
    gated, (x, y) = gated_of(Tokens), batch(Tokens)
    gated.log_odds.data.fill_(9.0)  # closed units pay nothing, and learn nothing
    Trace_ELBO().differentiable_loss(gated.model, gated.guide, x, y).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in gated.log_scales.values())
    drawn = Predictive(gated.model, guide=gated.guide, num_samples=3)(x)
    assert drawn["weight/tokens.weight"].shape[-2:] == (5, 2) and drawn["y"].shape[0] == 3


# ---- surgery


@NETWORKS
def test_scales_and_their_moments_are_cut_with_their_weights(kind):
    """What is left of a scale is what lay beside what is left of its weight, moments of Adam too."""
    gated = gated_of(kind)
    pairs = [(gated.weight_tensors()[n], s) for n, s in gated.log_scales_by_tensor().items()]
    for weight, scale in pairs:  # so that a weight says which scale belongs to it
        weight.data = torch.arange(weight.numel(), dtype=torch.double).reshape(weight.shape)
        scale.data = 1000 + weight.data
    optimiser = torch.optim.Adam([p for pair in pairs for p in pair])
    for parameter in (p for pair in pairs for p in pair):
        optimiser.state[parameter] = {"step": torch.tensor(1.0), "exp_avg": -parameter.detach().clone()}
    dead = torch.zeros_like(gated.alive)
    dead[0] = True
    gated.remove_(dead, optimiser)
    fewer = 0
    for (weight, scale), name in zip(pairs, gated.log_scales_by_tensor(), strict=True):
        assert torch.equal(scale.data, 1000 + weight.data), name
        for parameter in (weight, scale):
            assert torch.equal(optimiser.state[parameter]["exp_avg"], -parameter.data), name
        fewer += weight.numel() < gated.dense_numel[name]
    assert fewer > 1


def test_a_cut_that_is_rolled_back_puts_scales_back(monkeypatch):
    gated = gated_of(Residual)
    before = {name: scale.detach().clone() for name, scale in gated.log_scales_by_tensor().items()}
    dead = torch.zeros_like(gated.alive)
    dead[0] = True
    with monkeypatch.context() as patch:
        patch.setattr("bayesprune.structure.graph.network.alike", lambda first, second: False)
        with pytest.raises(RemovalError, match="nothing was removed"):
            gated.remove_(dead)
    for name, scale in gated.log_scales_by_tensor().items():
        assert torch.equal(scale, before[name])
    gated.remove_(dead)
    assert gated.log_scales_by_tensor()["stem.weight"].shape == (2, 2)


# ---- a whole fit


def rows():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 2, generator=generator).float()
    return x, (x[:, 0] > 0).long()


FAST = Recipe(
    gates=GateSteps(learning_rate=0.5, momentum=0.5, clip=1.0, every=1),
    shrink=bp.Shrink(every=5), learning_rate=2e-2, compact_learning_rate=2e-2,
    warmup=0.1, ramp=0.3, decide=0.6,
)  # fmt: skip


class Wide(Residual):
    """The same with more units than the problem needs."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.up = nn.Linear(2, 8), nn.LayerNorm(8), nn.Linear(8, 6)
        self.down, self.head = nn.Linear(6, 8), nn.Linear(8, 2)


def fitted(gated=None, recipe=FAST, layers="none", **settings):
    torch.manual_seed(0)
    prior = priors.SpikeAndSlab(slab_scale=1.0, inclusion=priors.Flattening(2.0))
    (x, y), likelihood = rows(), bp.Categorical(rows=96)
    gated = gated or bp.gate(Wide().float(), x[:2], prior=prior, likelihood=likelihood, layers=layers)
    return bp.fit(gated.float(), (x, y), epochs=20, batch_size=16, recipe=recipe, progress=False, **settings)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")
def test_spike_and_slab_learns_prunes_and_resumes(tmp_path):
    whole = fitted()
    x, y = rows()
    assert sum(whole.architecture) < 14
    small = bp.prune(whole)
    assert type(small) is Wide and bp.evaluate(small, (x, y), bp.Categorical(rows=96)).score < 15
    for name, tensor in whole.gated.weight_tensors().items():
        assert whole.gated.log_scales_by_tensor()[name].shape == tensor.shape
    draws = to_arviz(whole, draws=7).posterior
    assert draws["weight/up.weight"].shape[1:] == (7, *small.up.weight.shape)
    fitted(checkpoint=tmp_path)
    sorted(tmp_path.iterdir())[-1].unlink()
    again = fitted(checkpoint=tmp_path, resume=True)
    for name, value in whole.gated.state_dict().items():
        assert torch.equal(value, again.gated.state_dict()[name]), name


@pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")
def test_a_section_goes_with_all_its_weights_and_scales():
    """The problem needs none of it: the weights inside cost nats, which its gate is told of."""
    result = fitted(layers="sections")
    assert result.gated.kept()["layers"] == 0
    scales = result.gated.log_scales_by_tensor()
    assert scales["up.weight"].numel() == scales["down.bias"].numel() == 0
    assert {name for name, _ in bp.prune(result).named_parameters()} == {
        "stem.weight", "stem.bias", "head.weight", "head.bias",
    }  # fmt: skip
    assert bp.evaluate(bp.prune(result), rows(), bp.Categorical(rows=96)).score < 15


@pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")
def test_the_compact_part_may_have_a_posterior_too():
    x, _ = rows()
    prior = priors.BernoulliGates(priors.Flattening(2.0))
    gated = bp.gate(Wide().float(), x[:2], prior=prior, likelihood=bp.Categorical(rows=96))
    result = fitted(gated, Recipe(**{**vars(FAST), "compact_weights": "normal"}))
    assert set(result.gated.log_scales_by_tensor()) == set(result.gated.weight_tensors())
    scales = torch.cat([s.exp().flatten() for s in result.gated.log_scales.values()])
    assert bool((scales > 0.0025).any()) and bool(torch.isfinite(scales).all())
