"""Learnt masks: soft thresholds and the power 2/3 in closed form, the order in which units go."""

import copy

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import SelectionError
from bayesprune.selection import LearntEdgeMasks, LearntMasks, Magnitude, Subject, path, select
from tests.selection.networks import example_of, posterior_of
from tests.selection.test_posterior_rules import design, regression_at_its_mode

ROWS = 50
WEIGHTS = torch.tensor([0.9, -0.5, 0.3, 0.2, 0.6]).double()
TRUE = torch.tensor([0.8, -0.4, 0.05, 0.19, 0.0]).double()


def problem():
    """A linear regression on orthogonal inputs of unit size, its weights not at their optimum; σ = 1."""
    x, _ = design(0.0, rows=ROWS, units=5)
    network = nn.Sequential(nn.Linear(5, 1, bias=False)).double()
    network[0].weight.data[:] = WEIGHTS
    gated = bp.gate(
        network,
        x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Fixed(0.5)),
        likelihood=bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False).double(),
    )
    return x, x @ TRUE[:, None], gated


def settings(**changes):
    given = {"epochs": 400, "batch_size": ROWS, "learning_rate": 2.0, "momentum": 0.0, "hold_weights": True}
    return {**given, **changes}


@pytest.mark.parametrize(("penalty", "momentum"), [(0.5, 0.0), (2.5, 0.0), (7.5, 0.0), (2.5, 0.5)])
def test_at_fixed_weights_masks_are_soft_thresholds(penalty, momentum):
    """N L = N/2 Σ (β − m w)² on orthogonal inputs: m = max(0, β/w − λ / (N w²)); units and edges alike."""
    x, y, gated = problem()
    expected = (TRUE / WEIGHTS - penalty / (ROWS * WEIGHTS**2)).clamp_min(0)
    given = settings(momentum=momentum)
    for rule, name in ((LearntMasks, "input"), (LearntEdgeMasks, "0.weight")):
        found = rule(x, y, penalty, **given).learnt(Subject.of(gated))[name].flatten()
        torch.testing.assert_close(found.clamp_min(0), expected, atol=1e-6, rtol=1e-6)
        assert torch.equal(found > 0, expected > 0)
    own = select(LearntMasks(x, y, penalty, **given), Subject.of(gated))["input"]
    assert torch.equal(own, expected > 0)


def test_masks_reach_zero_in_the_order_of_their_closed_form():
    """By small steps m(t) = m∞ + (1 − m∞) exp(−w² t), which is zero at log((1 − m∞) / −m∞) / w²."""
    x, y, gated = problem()
    penalty, rate, steps = 15.0, 0.05, 400
    end = TRUE / WEIGHTS - penalty / (ROWS * WEIGHTS**2)
    gone = end < 0
    times = ((1 - end[gone]) / -end[gone]).log() / WEIGHTS[gone] ** 2
    rule = LearntMasks(x, y, penalty, **settings(learning_rate=rate, epochs=steps))
    found = rule.learnt(Subject.of(gated))["input"]
    assert torch.equal(found <= 0, gone) and int(gone.sum()) == 4
    torch.testing.assert_close((found[gone] + 1) * steps * rate, times, atol=2 * rate, rtol=0.02)


def test_an_early_stop_leaves_the_masks_of_the_path():
    """Learning for fewer passes: who is left are the first of the whole order."""
    x, y, gated = problem()
    subject, sizes = Subject.of(gated), set()
    order = LearntMasks(x, y, 15.0, **settings(learning_rate=0.05)).scores(subject)["input"]
    order = order.argsort(descending=True)
    for epochs in (20, 60, 70, 80, 160):
        rule = LearntMasks(x, y, 15.0, **settings(learning_rate=0.05, epochs=epochs))
        left = (rule.learnt(subject)["input"] > 0).nonzero()[:, 0].tolist()
        assert set(left) == set(order[: len(left)].tolist())
        sizes.add(len(left))
    assert len(sizes) > 2


def test_a_mask_at_zero_stays_there():
    """Momentum carries it past its optimum, which is above zero: it would come back."""
    x, y, gated = problem()
    found = LearntMasks(x, y, 1e-3, **settings(momentum=0.95)).learnt(Subject.of(gated))["input"]
    assert float(TRUE[2] / WEIGHTS[2]) > 0.1 and float(found[2]) < -0.5


def test_with_both_learnt_products_pay_a_power_of_two_thirds():
    """Each product minimises N/2 (b − β)² + 3/2 (λ² β² / s²)^{1/3}, over a grid of β."""
    x, y, gated = problem()
    penalty, scale = 0.75, 1.4
    given = settings(hold_weights=False, weight_scale=scale, learning_rate=0.4, momentum=0.5, epochs=1000)
    subject = Subject.of(gated)
    masks = LearntMasks(x, y, penalty, **given).learnt(subject)["input"]
    edges = LearntEdgeMasks(x, y, penalty, **given).learnt(subject)["0.weight"]
    torch.testing.assert_close(edges.flatten(), masks, atol=1e-9, rtol=1e-9)
    grid = torch.linspace(-1.5, 1.5, 300_001).double()
    for unit, mask in enumerate(masks.tolist()):
        paid = 0.5 * ROWS * (TRUE[unit] - grid) ** 2 + 1.5 * (penalty * grid / scale).square().pow(1 / 3)
        best = float(grid[paid.argmin()])
        if abs(best) < 1e-4:
            assert mask <= 0
        else:
            assert mask == pytest.approx((best**2 / (penalty * scale**2)) ** (1 / 3), rel=1e-3)
    assert 2 <= int((masks > 0).sum()) <= 3


def test_without_a_prior_of_the_weights_masks_shrink_without_end():
    """The products stay, and weights grow as masks shrink."""
    x, y, gated = problem()
    sums = []
    for epochs in (30, 120, 480):
        given = settings(hold_weights=False, epochs=epochs, weight_scale=1e6, learning_rate=0.4)
        rule = LearntEdgeMasks(x, y, 0.75, **given)
        sums.append(float(rule.learnt(Subject.of(gated))["0.weight"].clamp_min(0).sum()))
    assert sums[0] > 1.2 * sums[1] > 1.4 * sums[2]


@pytest.mark.parametrize("rule", [LearntMasks, LearntEdgeMasks])
def test_nothing_is_changed_and_a_seed_gives_the_same_again(rule):
    example = example_of("lenet5")
    gated = posterior_of(example)
    before, state = copy.deepcopy(gated.state_dict()), torch.get_rng_state()
    subject = Subject.of(gated, example.x)
    given = rule(example.x, example.y, 5.0, epochs=3, batch_size=16)
    first, again, other = (given.learnt(subject, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, gated.state_dict()[name]) for name, value in before.items())


def test_removed_units_are_not_learnt_and_rank_last():
    example = example_of("lenet5")
    gated = posterior_of(example)
    gated.remove_(gated.log_odds < 0.3)
    subject = Subject.of(gated, example.x)
    scores = LearntMasks(example.x, example.y, 5.0, epochs=2).scores(subject)
    for name, alive in subject.alive.items():
        assert bool((scores[name][~alive] == -1).all()) and bool((scores[name][alive] > -1).all())


def test_units_that_nobody_needs_go_first():
    """Half of the hidden units are read with weights of zero: the loss does not hold their masks."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 10), nn.Tanh(), nn.Linear(10, 2))
    network[0].weight.data[:5] *= 0.1  # small, and needed: by magnitude they would be the first
    network[2].weight.data[:, :5] *= 50.0
    network[2].weight.data[:, 5:] = 0.0
    x = torch.randn(300, 4)
    y = network(x).detach()
    given = {"epochs": 20, "batch_size": 50, "learning_rate": 0.01, "hold_weights": True}
    likelihood = bp.Gaussian(rows=300, scale=1.0, learn_scale=False)
    rule = LearntMasks(x, y, 3.0, **given, likelihood=likelihood)
    scores = rule.scores(Subject.of(network, x))["0"]
    assert float(scores[:5].min()) > float(scores[5:].max())
    norms = Magnitude().scores(Subject.of(network, x))["0"]
    assert float(norms[:5].max()) < float(norms[5:].min())
    kept = next(path(network, x, rule, [0.55])).masks["0"]
    assert bool(kept[:5].all()) and not bool(kept[5:].any())


WRONG = {
    "penalty": ({"penalty": 0.0}, r"penalty=0\.0"),
    "epochs": ({"penalty": 1.0, "epochs": 0}, "epochs=0"),
    "batch": ({"penalty": 1.0, "batch_size": 2.5}, r"batch_size=2\.5"),
    "rate": ({"penalty": 1.0, "learning_rate": float("inf")}, "learning_rate=inf"),
    "momentum": ({"penalty": 1.0, "momentum": 1.0}, r"momentum=1\.0"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("rule", [LearntMasks, LearntEdgeMasks])
def test_settings_that_are_none_are_refused(name, rule):
    given, message = WRONG[name]
    with pytest.raises(SelectionError, match=rf"{rule.__name__}\({message}\)"):
        rule(torch.zeros(3, 2), torch.zeros(3), **given)


def test_a_learning_that_diverges_says_so():
    x, y, gated = problem()
    rule = LearntMasks(x, y, 1.0, learning_rate=1e4, epochs=400)
    with pytest.raises(SelectionError, match=r"loss became (inf|nan) by step \d+: lower learning_rate=1"):
        rule.learnt(Subject.of(gated))


def test_a_prior_of_the_weights_is_the_posteriors_own():
    """A posterior's weights are held by its prior unless another one is named."""
    x, y, _ = problem()
    subject = Subject.of(regression_at_its_mode(x, y, slab=0.7))
    given = settings(hold_weights=False, epochs=50)
    own, named, other = (
        LearntMasks(x, y, 0.75, **given, weight_scale=scale).learnt(subject)["input"]
        for scale in (None, 0.7, 0.2)
    )
    assert torch.equal(own, named) and not torch.equal(own, other)
