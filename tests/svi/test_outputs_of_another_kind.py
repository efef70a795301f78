"""Probabilities and rates where log-odds and log rates are meant are said before the fit; nothing else is."""

import warnings

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import LikelihoodWarning

ROWS = 64


def fit(likelihood, columns, end, targets):
    torch.manual_seed(0)
    x = torch.randn(ROWS, 4)
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, columns), end)
    prior = priors.BernoulliGates(priors.Flattening(1.0))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=likelihood)
    bp.fit(gated, (x, targets(x)), epochs=1, batch_size=32, progress=False)


def classes(x):
    return (x[:, 0] > 0).long()


def counts(x):
    return x[:, 0].abs().mul(3).round()


WRONG = {
    "softmax": (bp.Categorical, 3, nn.Softmax(-1), classes, "sum to one.*leave the last Softmax"),
    "sigmoids of classes": (bp.Categorical, 3, nn.Sigmoid(), classes, r"lie in \[0, 1\].*log-odds"),
    "sigmoid": (bp.Bernoulli, 1, nn.Sigmoid(), classes, "leave the last Sigmoid out"),
    "clamped": (bp.Bernoulli, 1, nn.Hardsigmoid(), classes, "leave the last Sigmoid out"),
    "log of a sigmoid": (bp.Bernoulli, 1, nn.LogSigmoid(), classes, "never above 0"),
    "relu": (bp.Bernoulli, 1, nn.ReLU(), classes, "never below 0"),
    "rates": (bp.Poisson, 1, nn.Softplus(), counts, "log rates"),
}
RIGHT = {
    "log-odds of classes": (bp.Categorical, 3, nn.Identity(), classes),
    "log of a softmax": (bp.Categorical, 3, nn.LogSoftmax(-1), classes),
    "log-odds": (bp.Bernoulli, 1, nn.Identity(), classes),
    "bounded log-odds": (bp.Bernoulli, 1, nn.Tanh(), classes),
    "log rates": (bp.Poisson, 1, nn.Identity(), counts),
}


@pytest.mark.parametrize("case", WRONG)
def test_outputs_of_another_kind_are_said(case):
    likelihood, columns, end, targets, words = WRONG[case]
    with pytest.warns(LikelihoodWarning, match=words):
        fit(likelihood(rows=ROWS), columns, end, targets)


@pytest.mark.parametrize("case", RIGHT)
def test_outputs_as_they_should_be_are_passed_over(case):
    likelihood, columns, end, targets = RIGHT[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error", LikelihoodWarning)
        fit(likelihood(rows=ROWS), columns, end, targets)


def test_a_last_layer_that_happens_to_say_small_positive_numbers_is_passed_over():
    class Positive(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
            self[2].weight.data.zero_()
            self[2].bias.data.fill_(0.5)

    x = torch.randn(ROWS, 4)
    prior = priors.BernoulliGates(priors.Flattening(1.0))
    gated = bp.gate(Positive(), x[:1], prior=prior, likelihood=bp.Bernoulli(rows=ROWS))
    with warnings.catch_warnings():
        warnings.simplefilter("error", LikelihoodWarning)
        bp.fit(gated, (x, classes(x)), epochs=1, batch_size=32, progress=False)
    assert gated.network.get_parameter("2.bias").item() == 0.5
