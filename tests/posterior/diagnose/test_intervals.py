"""What intervals hold: planted successes and failures, at the declared rate of false alarms."""

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

import bayesprune as bp
from bayesprune.posterior.diagnose.intervals import held

DRAWS, TRIALS, ALARM = 199, 200, 0.05


def targets(kind, generator):
    """(1 + draws, 40), the observed set first, all of one distribution."""
    noise = generator.normal(size=(DRAWS + 1, 40))
    if kind == "rows that depend on each other":  # a network that is drawn shifts all of them
        return noise + generator.normal(size=(DRAWS + 1, 1))
    return generator.poisson(3, noise.shape).astype(float) if kind == "counts" else noise


@pytest.mark.parametrize("kind", ["independent rows", "rows that depend on each other", "counts"])
def test_right_predictions_are_convicted_as_often_as_declared(kind):
    """At 5 %: more than is allowed here has a probability of 1e-4 at most."""
    generator = np.random.default_rng(0)
    sets = [targets(kind, generator) for _ in range(TRIALS)]
    alarms = sum(held(s[1:], s[0]).p_value <= ALARM for s in sets)
    assert alarms <= binom.ppf(1 - 1e-4, TRIALS, ALARM)
    if kind == "independent rows":  # shares of 40 rows take few values, which costs little
        assert alarms >= binom.ppf(1e-4, TRIALS, ALARM / 2)


@pytest.mark.parametrize("factor", [0.5, 2.5])
def test_intervals_that_are_too_narrow_or_too_wide_are_seen(factor):
    generator, seen = np.random.default_rng(1), 0
    for _ in range(20):
        noise = generator.normal(size=(DRAWS + 1, 100))
        found = held(factor * noise[1:], noise[0])
        exact = 2 * float(torch.special.ndtr(torch.tensor(1.6449 * factor))) - 1
        assert found.share == pytest.approx(exact, abs=0.2) and found.expected == pytest.approx(0.9, abs=0.01)
        seen += not found.holds(0.01)
    assert seen == 20


def test_what_is_off_by_little_is_small_however_sure():
    noise = np.random.default_rng(2).normal(size=(200, 5_000))
    found = held(0.96 * noise[1:], noise[0])
    assert found.p_value <= 0.01 and found.holds(0.01)
    assert not held(0.85 * noise[1:], noise[0]).holds(0.01)


@pytest.fixture(scope="module")
def fitted():
    """A line through 60 rows, noise 1, and as many rows that were held out."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 2, generator=generator)
    y = 2 * x[:, :1] + torch.randn(120, 1, generator=generator)
    torch.manual_seed(0)
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(1.0))
    gated = bp.gate(nn.Sequential(nn.Linear(2, 1)), x[:1], prior=prior, likelihood=bp.Gaussian(rows=60))
    recipe = bp.Recipe(learning_rate=3e-2)
    result = bp.fit(gated, (x[:60], y[:60]), epochs=80, batch_size=60, recipe=recipe, progress=False)
    return result, (x[:60], y[:60]), (x[60:], y[60:])


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
@pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")
def test_diagnose_asks_what_intervals_hold(fitted):
    result, rows, held_out = fitted

    def asked(**given):
        answer = bp.diagnose(result, **given).faithful
        return answer, [m for m in answer.measures if m.name.startswith("share of targets in 90 %")]

    answer, (measure,) = asked(rows=rows, held_out=held_out)
    assert measure.holds and 0.8 < measure.value <= 1
    predicted = bp.predict(result, held_out[0], draws=1000)
    low, high = predicted.interval(0.9)
    inside = ((held_out[1] >= low) & (held_out[1] <= high)).double().mean()
    assert measure.value == pytest.approx(float(inside), abs=0.04)
    answer, (measure,) = asked(rows=rows)
    assert measure.holds is None and "of training rows, and not judged" in answer.why
    assert not asked(rows=rows, held_out=held_out, draws=50)[1], "so few draws convict nobody"
    before = result.likelihood.log_scale.data.clone()
    for factor, told in ((0.3, "too narrow: let weights have a posterior"), (4.0, "too wide")):
        result.likelihood.log_scale.data += np.log(factor)
        answer, (measure,) = asked(rows=rows, held_out=held_out)
        assert answer.verdict == "no" and measure.holds is False and told in answer.why, answer
        result.likelihood.log_scale.data.copy_(before)
