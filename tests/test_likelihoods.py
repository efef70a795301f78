"""Likelihoods: nats against the distributions themselves, scores by hand, and every refusal."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from torch import nn

from bayesprune.errors import LikelihoodError
from bayesprune.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, Own, Poisson

BATCH = 5


def student(outputs):
    return dist.StudentT(4.0, outputs[..., 0], outputs[..., 1].exp())


def example(name, columns=3):
    """A likelihood, outputs of a network for a batch, and targets that fit."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(BATCH, columns, generator=generator)
    labels = torch.tensor([0, 2, 1, 1, 0])
    reals = torch.randn(BATCH, columns, generator=generator)
    return {
        "categorical": (Categorical(100), outputs, labels),
        "gaussian": (Gaussian(100, scale=0.7), outputs, reals),
        "gaussian, one": (Gaussian(100), outputs[:, :1], reals[:, 0]),
        "gaussian, fixed": (Gaussian(100, scale=2.0, learn_scale=False), outputs, reals),
        "bernoulli": (Bernoulli(100), outputs, (reals > 0)),
        "bernoulli, one": (Bernoulli(100), outputs[:, :1], labels % 2),
        "poisson": (Poisson(100), outputs, reals.abs().mul(3).round()),
        "poisson, one": (Poisson(100), outputs[:, :1], labels),
        "own": (Own(100, student), outputs, reals[:, 0]),
    }[name]


NAMES = [
    "categorical", "gaussian", "gaussian, one", "gaussian, fixed", "bernoulli", "bernoulli, one", "poisson",
    "poisson, one", "own",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_nll_is_minus_the_log_probability_of_the_distribution(name):
    likelihood, outputs, targets = example(name)
    distribution = likelihood(outputs)
    assert distribution.batch_shape == (BATCH,)
    expected = -distribution.log_prob(likelihood.observe(targets))
    nll = likelihood.nll(outputs, targets)
    assert nll.shape == (BATCH,)
    torch.testing.assert_close(nll, expected)


@pytest.mark.parametrize("name", NAMES)
def test_leading_dimensions_are_kept(name):
    likelihood, outputs, targets = example(name)
    many = torch.stack([outputs, outputs + 1.0])
    assert likelihood(many).batch_shape == (2, BATCH)
    assert likelihood.nll(many, targets).shape == (2, BATCH)
    assert likelihood.score(many, targets).shape == (2,)
    torch.testing.assert_close(likelihood.nll(many, targets)[0], likelihood.nll(outputs, targets))
    torch.testing.assert_close(likelihood.score(many, targets)[0], likelihood.score(outputs, targets))


@pytest.mark.parametrize("name", NAMES)
def test_what_fits_is_accepted_and_scores_add_up_over_batches(name):
    likelihood, outputs, targets = example(name)
    likelihood.validate(outputs, targets)
    whole = likelihood.score(outputs, targets)
    parts = likelihood.score(outputs[:2], targets[:2]) + likelihood.score(outputs[2:], targets[2:])
    torch.testing.assert_close(whole, parts)
    assert likelihood.score_name in ("error_percent", "rmse", "deviance")
    assert math.isfinite(likelihood.mean_score(float(whole), BATCH))


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_the_nats_is_finite(name):
    likelihood, outputs, targets = example(name)
    outputs.requires_grad_()
    likelihood.nll(outputs, targets).sum().backward()
    assert bool(outputs.grad.isfinite().all())
    for parameter in likelihood.parameters():
        assert bool(parameter.grad.isfinite())


@given(
    rows=st.integers(1, 6), classes=st.integers(2, 6), seed=st.integers(0, 1000), shift=st.floats(-1e3, 1e3)
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_categorical_is_the_cross_entropy_and_ignores_a_common_shift(rows, classes, seed, shift):
    generator = torch.Generator().manual_seed(seed)
    outputs = 10 * torch.randn(rows, classes, generator=generator, dtype=torch.double)
    labels = torch.randint(classes, (rows,), generator=generator)
    likelihood = Categorical(rows)
    by_hand = outputs.logsumexp(-1) - outputs.gather(-1, labels[:, None])[:, 0]
    torch.testing.assert_close(likelihood.nll(outputs, labels), by_hand)
    torch.testing.assert_close(likelihood.nll(outputs + shift, labels), by_hand)


def test_scores_by_hand():
    score = Categorical(4).score(torch.eye(4), torch.tensor([0, 1, 0, 0]))
    assert Categorical(4).mean_score(float(score), 4) == 50.0

    outputs, targets = torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    gaussian = Gaussian(2)
    assert gaussian.mean_score(float(gaussian.score(outputs, targets)), 2) == pytest.approx(math.sqrt(2.0))

    wrong = Bernoulli(2).score(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[1, 1], [1, 1]]))
    assert Bernoulli(2).mean_score(float(wrong), 2) == 25.0

    counts = torch.tensor([0.0, 1.0, 7.0])
    poisson = Poisson(3)
    assert float(poisson.score(counts.clamp_min(1e-30).log()[:, None], counts)) == pytest.approx(
        0.0, abs=1e-5
    )
    off = poisson.score(torch.log(torch.tensor([[2.0]])), torch.tensor([3]))
    assert float(off) == pytest.approx(2 * (3 * math.log(1.5) - 1))

    own, outputs, targets = example("own")
    torch.testing.assert_close(own.score(outputs, targets), 2 * own.nll(outputs, targets).sum())


def test_gaussian_learns_the_noise():
    torch.manual_seed(0)
    targets = 0.3 * torch.randn(4000, 2)
    likelihood = Gaussian(4000)
    optimiser = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        likelihood.nll(torch.zeros(4000, 2), targets).mean().backward()
        optimiser.step()
    assert likelihood.log_scale.exp().item() == pytest.approx(0.3, rel=0.05)


def test_gaussian_without_learning_has_a_buffer():
    likelihood = Gaussian(10, scale=2.0, learn_scale=False)
    assert not list(likelihood.parameters()) and likelihood.state_dict()[
        "log_scale"
    ].exp().item() == pytest.approx(2.0)


def test_poisson_stays_finite_where_the_rate_rounds_to_zero():
    assert Poisson(1).nll(torch.tensor([[-200.0]]), torch.tensor([2])).item() == pytest.approx(
        400.7, abs=0.01
    )


def test_a_likelihood_of_your_own_needs_forward_alone():
    class Exponential(Likelihood):
        def forward(self, outputs):
            return dist.Exponential(outputs[..., 0].exp())

    likelihood = Exponential(10)
    assert isinstance(likelihood, nn.Module) and likelihood.score_name == "deviance"
    likelihood.validate(torch.zeros(3, 1), torch.ones(3))
    torch.testing.assert_close(likelihood.nll(torch.zeros(3, 1), torch.ones(3)), torch.ones(3))
    with pytest.raises(NotImplementedError, match="forward"):
        Likelihood(10)(torch.zeros(3, 1))


@pytest.mark.parametrize("rows", [0, -5, 2.0, True, None, "60000"])
@pytest.mark.parametrize("build", [Categorical, Gaussian, Poisson])
def test_rows_must_be_a_positive_whole_number(build, rows):
    with pytest.raises(LikelihoodError, match=rf"{build.__name__} needs rows=.*{rows!r}.*not of a batch"):
        build(rows)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Gaussian(10, scale=0.0),
        lambda: Gaussian(10, scale=math.nan),
        lambda: Own(10, distribution=dist.Normal(0.0, 1.0).mean),
    ],
)
def test_other_settings_are_checked(build):
    with pytest.raises(LikelihoodError):
        build()


ONES = torch.ones(BATCH)
REFUSED = {
    "labels out of range": (Categorical(9), torch.zeros(5, 3), torch.tensor([0, 1, 2, 3, 0]), "0 to 3"),
    "labels from -1": (Categorical(9), torch.zeros(5, 3), torch.tensor([-1, 1, 2, 0, 0]), "-1 to 2"),
    "labels as floats": (Categorical(9), torch.zeros(5, 3), ONES, r"targets\.long\(\)"),
    "one-hot labels": (Categorical(9), torch.zeros(5, 3), torch.eye(5, 3).long(), "one-hot"),
    "other rows": (Categorical(9), torch.zeros(5, 3), torch.zeros(4).long(), "5 rows and targets 4"),
    "one output": (Categorical(9), torch.zeros(5, 1), torch.zeros(5).long(), "use Bernoulli"),
    "flat outputs": (Categorical(9), torch.zeros(5), torch.zeros(5).long(), r"\(batch, columns\)"),
    "whole outputs": (Gaussian(9), torch.zeros(5, 1).long(), ONES, "must be real"),
    "whole targets": (Gaussian(9), torch.zeros(5, 1), ONES.long(), r"targets\.float\(\)"),
    "nan targets": (Gaussian(9), torch.zeros(5, 1), ONES * math.nan, "5 targets are not finite"),
    "other columns": (Gaussian(9), torch.zeros(5, 2), ONES, "2 columns and targets 1"),
    "deep targets": (Gaussian(9), torch.zeros(5, 2), torch.zeros(5, 2, 2), r"\(batch, columns\)"),
    "not binary": (Bernoulli(9), torch.zeros(5, 1), 2 * ONES, "2.0.*zeros and ones"),
    "negative counts": (Poisson(9), torch.zeros(5, 1), -ONES, "whole numbers"),
    "broken counts": (Poisson(9), torch.zeros(5, 1), ONES / 2, "whole numbers"),
    "yes or no counts": (Poisson(9), torch.zeros(5, 1), ONES.bool(), "use Bernoulli"),
    "no distribution": (Own(9, lambda out: out), torch.zeros(5, 1), ONES, "Pyro distribution"),
    "loose event": (Own(9, lambda out: dist.Normal(out, 1.0)), torch.zeros(5, 2), ONES, "to_event"),
    "broadcast event": (
        Own(9, lambda out: dist.Normal(out[..., 0], 1.0)), torch.zeros(5, 1), torch.zeros(5, 5), "event shape"
    ),
    "wrong event": (
        Own(9, lambda out: dist.Normal(out, 1.0).to_event(1)), torch.zeros(5, 2), torch.zeros(5, 3),
        "cannot score",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_a_reason(name):
    likelihood, outputs, targets, message = REFUSED[name]
    with pytest.raises(LikelihoodError, match=message) as caught:
        likelihood.validate(outputs, targets)
    assert str(caught.value).startswith(type(likelihood).__name__)


def test_of_maps_it_is_said_that_they_are_maps_and_nothing_of_rows():
    with pytest.raises(LikelihoodError, match=r"take Own, with \.to_event") as caught:
        Categorical(9).validate(torch.zeros(5, 3, 8, 8), torch.zeros(5, 8, 8).long())
    assert "rows and targets" not in str(caught.value)


def test_every_problem_is_told_at_once():
    with pytest.raises(LikelihoodError, match=r"(?s)one column.*targets\.long\(\).*5 rows and targets 4"):
        Categorical(9).validate(torch.zeros(5, 1), torch.zeros(4))
