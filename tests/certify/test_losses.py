"""Losses: what each counts, the level that it is tested at, and validity where the risk is known."""

import numpy as np
import pytest
import torch
from scipy import stats

from bayesprune.certify.losses import (
    Disagreement,
    Error,
    ExcessError,
    NewErrors,
    OwnLoss,
    Selective,
    coverage_of,
    loss_from,
)  # fmt: skip
from bayesprune.certify.pvalues import Betting, Binomial, HoeffdingBentkus
from bayesprune.errors import CertificateError
from tests.certify.classes import CASES, RISKS, rows

LOSSES = [Error(), ExcessError(), NewErrors(), Disagreement(), Selective()]
CHANCES = np.array([0.78, 0.08, 0.04, 0.07, 0.03])


def test_every_case_is_counted_as_it_is_called():
    outputs, reference, labels = rows(torch.arange(len(CASES)), torch.ones(5, dtype=torch.bool))
    expected = {
        "error": [0, 1, 0, 1, 1],
        "excess": [0.5, 1, 0, 0.5, 0.5],
        "new-errors": [0, 1, 0, 0, 0],
        "disagreement": [0, 1, 1, 0, 1],
        "selective": [0, 1, 0, 1, 1],
    }
    for loss in LOSSES:
        assert loss.scores(outputs, reference, labels).values.tolist() == expected[loss.name]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_risk_of_alpha_is_seldom_rejected(loss):
    """600 calibrations of 300 rows whose risk is alpha, at a false-alarm rate of 1e-4, by every p-value."""
    alpha, generator = RISKS[loss.name](CHANCES), np.random.default_rng(4)
    p_values = [HoeffdingBentkus(), Betting(0.1)] + ([Binomial()] if loss.zero_one else [])
    false = dict.fromkeys(p_values, 0)
    cases = torch.from_numpy(generator.choice(5, size=(600, 300), p=CHANCES))
    sure = torch.from_numpy(generator.random((600, 300)) < 0.6)
    for case, confident in zip(cases, sure, strict=True):
        scores = loss.scores(*rows(case, confident))
        for p_value in p_values:
            false[p_value] += loss.p_value(scores, alpha, p_value) <= 0.1
    for p_value, count in false.items():
        assert stats.binom.sf(count - 1, 600, 0.1) > 1e-4, (p_value.name, count)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_the_risk_is_estimated_without_bias(loss):
    """The mean over 200,000 rows lies within five standard errors."""
    generator = np.random.default_rng(5)
    case = torch.from_numpy(generator.choice(5, size=200_000, p=CHANCES))
    scores = loss.scores(*rows(case, torch.from_numpy(generator.random(200_000) < 0.6)))
    assert loss.risk(scores) == pytest.approx(RISKS[loss.name](CHANCES), abs=5 * 0.5 / 120_000**0.5)
    assert coverage_of(scores) == pytest.approx(0.6 if loss.name == "selective" else 1.0, abs=0.006)


def test_selective_counts_confident_rows_alone_and_conditions_on_their_number():
    case = torch.tensor([1, 0, 0, 1, 0])
    sure = torch.tensor([False, True, True, True, True])
    loss = Selective(0.9)
    scores = loss.scores(*rows(case, sure))
    assert scores.counted.tolist() == sure.tolist() and loss.risk(scores) == 0.25
    assert loss.p_value(scores, 0.5, Binomial()) == pytest.approx(stats.binom.cdf(1, 4, 0.5))
    nobody = loss.scores(*rows(case, torch.zeros(5, dtype=torch.bool)))
    assert loss.p_value(nobody, 0.5, Binomial()) == 1.0 and np.isnan(loss.risk(nobody))
    by_reference = Selective(0.9, by="reference").scores(*rows(case, torch.zeros(5, dtype=torch.bool)))
    assert by_reference.counted.all()


def test_coverage_is_guaranteed_where_it_is_asked_for():
    """True coverage 0.5 = asked for, risk 0: P(p ≤ 0.1) ≤ 0.1 over 1,000 calibrations, false alarm 1e-4."""
    loss, generator, false = Selective(0.9, coverage=0.5), np.random.default_rng(6), 0
    for _ in range(1000):
        sure = torch.from_numpy(generator.random(100) < 0.5)
        false += loss.p_value(loss.scores(*rows(torch.zeros(100).long(), sure)), 0.1, Binomial()) <= 0.1
    assert false > 0 and stats.binom.sf(false - 1, 1000, 0.1) > 1e-4
    scores = loss.scores(*rows(torch.zeros(100).long(), torch.arange(100) < 70))
    assert loss.p_value(scores, 0.1, Binomial()) == pytest.approx(max(stats.binom.sf(69, 100, 0.5), 0.9**70))


def test_the_excess_is_tested_as_a_shifted_mean():
    loss = ExcessError()
    assert loss.level(0.02) == 0.51
    scores = loss.scores(*rows(torch.tensor([0, 0, 1, 2, 1]), torch.ones(5, dtype=torch.bool)))
    assert loss.risk(scores) == pytest.approx(1 / 5)


def test_binary_outputs_are_log_odds():
    outputs, labels = torch.tensor([[2.0], [-1.0], [3.0]]), torch.tensor([1, 1, 1])
    for form in (outputs, outputs.squeeze(1)):
        assert Error().scores(form, form, labels).values.tolist() == [0, 1, 0]
        assert Selective(0.8).scores(form, form, labels).counted.tolist() == [True, False, True]


def test_a_loss_of_ones_own_is_checked():
    outputs = torch.tensor([[1.0], [2.0]])
    wrong = {
        "values run from": OwnLoss(lambda y_hat, y: y_hat[:, 0], "raw"),
        "not a tensor of one value": OwnLoss(lambda y_hat, y: y_hat.sum(), "sum"),
        "between 0 and 1": OwnLoss(lambda y_hat, y: y_hat[:, 0] / 4, "quarter", zero_one=True),
    }
    for message, loss in wrong.items():
        with pytest.raises(CertificateError, match=message):
            loss.scores(outputs, outputs, None)
    nan = OwnLoss(lambda y_hat, y: y_hat[:, 0] * float("nan"), "nan")
    with pytest.raises(CertificateError, match="values run from"):
        nan.scores(outputs, outputs, None)
    three = OwnLoss(lambda y_hat, y, reference: (y_hat - reference)[:, 0].abs(), "moved", comparing=True)
    assert three.scores(outputs, outputs, None).values.tolist() == [0.0, 0.0]


def test_what_cannot_be_scored_is_named():
    outputs = torch.zeros(4, 3)
    assert "real targets" in Error().problems(outputs, torch.rand(4))[0]
    assert "run from 0 to 3" in Error().problems(outputs, torch.tensor([0, 1, 2, 3]))[0]
    assert "not (rows, classes)" in Disagreement().problems(torch.zeros(4, 3, 2), None)[0]
    assert Error().problems(outputs, torch.tensor([0, 1, 2, 2])) == []
    for loss in (ExcessError(), NewErrors(), Selective()):  # those of the reference's outputs
        assert "run from 0 to 3" in loss.problems(outputs, torch.tensor([0, 1, 2, 3]))[0]
        assert loss.problems(outputs, torch.tensor([0, 1, 2, 2])) == []


def test_losses_come_back_from_their_settings():
    chosen = Selective(0.7, loss=Disagreement(), coverage=0.2, by="reference")
    for loss in [*LOSSES, chosen]:
        assert loss_from(loss.to_json()).to_json() == loss.to_json()
    own = OwnLoss(lambda y_hat, y: y, "mine")
    assert loss_from(own.to_json(), own) is own
    with pytest.raises(CertificateError, match="somebody's own"):
        loss_from(own.to_json())
    with pytest.raises(CertificateError, match="must agree"):
        loss_from(own.to_json(), OwnLoss(lambda y_hat, y: y, "another"))
    with pytest.raises(CertificateError, match=r"confidence=1.5.*by='both'"):
        Selective(1.5, by="both")
    with pytest.raises(CertificateError, match="none of that name"):
        loss_from("accuracy")
