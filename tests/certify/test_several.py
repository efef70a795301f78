"""Several risks at once: the largest p-value, false no more often than one risk alone, and what is said."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats

from bayesprune.certify import Certificate, verify
from bayesprune.certify.losses import (
    Disagreement,
    Error,
    ExcessError,
    OfClass,
    OwnLoss,
    Selective,
    Several,
    each_class,
    loss_from,
    several_from,
)  # fmt: skip
from bayesprune.certify.paths import Weights
from bayesprune.certify.pvalues import Betting, Binomial, HoeffdingBentkus
from bayesprune.errors import CertificateError

PATH = Weights(shares=[0.0, 0.3, 0.6, 0.9])
DELTA, ROWS, CALIBRATIONS, FALSE_ALARM = 0.1, 200, 4000, 1e-4
BOTH = Several([(Error(), 0.08), (Disagreement(), 0.03)])


def drawn(generator, error, disagreement, dependent):
    """Outputs of candidate and reference, and labels, all 0: who errs, and who differs, by given chances."""
    first = generator.random(ROWS)
    second = first if dependent else generator.random(ROWS)
    wrong, other = torch.from_numpy(first < error), torch.from_numpy(second < disagreement)
    outputs = torch.eye(3)[torch.where(wrong, 1, 0)]
    reference = torch.eye(3)[torch.where(other, 2, torch.where(wrong, 1, 0))]
    return outputs, reference, torch.zeros(ROWS, dtype=torch.int64)


def test_it_is_the_largest_of_their_p_values():
    outputs, reference, y = drawn(np.random.default_rng(0), 0.05, 0.01, False)
    scores = BOTH.scores(outputs, reference, y)
    errors = int((outputs.argmax(1) != y).sum())
    others = int((outputs.argmax(1) != reference.argmax(1)).sum())
    each = [stats.binom.cdf(errors, ROWS, 0.08), stats.binom.cdf(others, ROWS, 0.03)]
    assert BOTH.p_values(scores, 0.08, Binomial()) == pytest.approx(each, rel=1e-12)
    assert BOTH.p_value(scores, 0.08, Binomial()) == max(BOTH.p_values(scores, 0.08, Binomial()))
    assert BOTH.each(scores) == [errors / ROWS, others / ROWS]
    some = np.arange(7, 90)
    assert BOTH.each(scores.on(some))[0] == float((outputs[7:90].argmax(1) != y[7:90]).double().mean())
    assert len(scores.on(some).values) == 83


@pytest.mark.parametrize("dependent", [True, False], ids=["the same rows", "other rows"])
@pytest.mark.parametrize("risks", [(0.08, 0.03), (0.08, 0.0), (0.0, 0.03)], ids=str)
def test_it_is_false_no_more_often_than_one_alone(risks, dependent):
    """A risk, or both, at its level exactly: 4,000 calibrations, false alarm 1e-4."""
    generator, false = np.random.default_rng(1), 0
    first = generator.random((CALIBRATIONS, ROWS))
    second = first if dependent else generator.random((CALIBRATIONS, ROWS))
    parts = [(first < risks[0]).astype(float), (second < risks[1]).astype(float)]
    p = np.maximum(Binomial()(parts[0], 0.08), Binomial()(parts[1], 0.03))
    false = int((p <= DELTA).sum())
    assert stats.binom.sf(false - 1, CALIBRATIONS, DELTA) > FALSE_ALARM, false / CALIBRATIONS
    if 0.0 in risks:  # nothing is paid for the other risk: it is as often certified as without it
        alone = Binomial()(parts[0], 0.08) if risks[0] else Binomial()(parts[1], 0.03)
        assert false == int((alone <= DELTA).sum())


def test_the_smallest_of_the_p_values_would_be_found():
    generator = np.random.default_rng(2)
    parts = (generator.random((2, CALIBRATIONS, ROWS)) < np.array([0.08, 0.03])[:, None, None]).astype(float)
    p = np.minimum(Binomial()(parts[0], 0.08), Binomial()(parts[1], 0.03))
    assert stats.binom.sf(int((p <= DELTA).sum()) - 1, CALIBRATIONS, DELTA) < FALSE_ALARM


def test_it_passes_only_where_both_do(certify, found, network, digits):
    both = found
    alone = [
        certify(path=PATH, loss=loss, alpha=alpha) for loss, alpha in (("error", 0.1), ("disagreement", 0.05))
    ]
    record = both.certificate.record
    for place, entry in enumerate(record["path"]):
        each = [found.certificate.record["path"][place] for found in alone]
        assert entry["p_values"] == [one["p_value"] for one in each]
        assert entry["risks"] == [one["risk"] for one in each]
        assert entry["p_value"] == max(entry["p_values"])
        assert entry["certified"] == all(one["certified"] for one in each)
    assert record["alpha"] == 0.1 and record["p_value"]["name"] == "binomial"
    assert record["certified"] == min(found.certificate.record["certified"] for found in alone)
    assert (
        "at most 10 % of new rows, and predicts another class than the reference network for at most 5 %"
        in (both.certificate.statement)
    )
    assert "risk 2 %" in str(both) and "1 error ≤ 10 %, 2 disagreement ≤ 5 %" in str(both)
    answer = verify(both.certificate, both.network, digits[1], reference=network)
    assert answer and answer.complete


def test_a_risk_of_each_class(certify, network, digits):
    _, (x, y) = digits
    found = certify(path=PATH, loss=each_class(10), alpha=0.3)
    record = found.certificate.record
    for place in range(4):
        predicted = PATH.candidates(network, x)[place].build()(x).argmax(1)
        for label, (risk, p) in enumerate(
            zip(record["path"][place]["risks"], record["path"][place]["p_values"], strict=True)
        ):
            errors, count = int((predicted[y == label] != label).sum()), int((y == label).sum())
            assert risk == pytest.approx(errors / count)
            assert p == pytest.approx(stats.binom.cdf(errors, count, 0.3), rel=1e-9)
    assert found and "for at most 30 % of new rows of class 9." in found.certificate.statement
    assert verify(found.certificate, found.network, (x, y), reference=network).complete
    with pytest.raises(CertificateError, match=r"of class 4 there is no row: give rows of every class"):
        certify(loss=each_class(10), alpha=0.3, rows=(x[y != 4], y[y != 4]))


def test_of_a_class_p_values_are_valid_given_how_many_rows_are_of_it():
    """Risk exactly alpha in the class, none elsewhere; 4,000 calibrations, false alarm 1e-4."""
    generator, loss, false = np.random.default_rng(3), OfClass(1), 0
    y = torch.from_numpy(generator.random((CALIBRATIONS, ROWS)) < 0.3).long()
    wrong = torch.from_numpy(generator.random((CALIBRATIONS, ROWS)) < 0.15) & (y == 1)
    for labels, errs in zip(y, wrong, strict=True):
        outputs = torch.eye(2)[torch.where(errs, 1 - labels, labels)]
        false += loss.p_value(loss.scores(outputs, outputs, labels), 0.15, Binomial()) <= DELTA
    assert stats.binom.sf(false - 1, CALIBRATIONS, DELTA) > FALSE_ALARM, false / CALIBRATIONS
    assert false > 0.5 * DELTA * CALIBRATIONS  # and is no smaller than it must be


def test_what_was_needed_raises_all_levels_in_proportion(certify, network):
    found = certify(path=[network], loss=["error", "disagreement"], alpha=[0.02, 0.01])
    needs = found.certificate.record["next"]
    assert certify(path=[network], loss=["error", "disagreement"], alpha=[needs["alpha"], needs["alpha"] / 2])
    less = needs["alpha"] - 3e-5
    assert not certify(path=[network], loss=["error", "disagreement"], alpha=[less, less / 2])


def test_rows_that_are_needed_are_those_of_the_risk_that_needs_most(certify, digits):
    x, y = digits[1]
    with pytest.raises(CertificateError, match=r"40 calibration rows are too few.* need 149"):
        certify(loss=["error", "disagreement"], alpha=[0.3, 0.02], rows=(x[:40], y[:40]))
    mixed = Several([(Error(), 0.05), (ExcessError(), 0.02)])
    assert not mixed.zero_one and mixed.labelled and mixed.comparing
    each = [Error().least_rows(Betting(), 0.05, 0.05), ExcessError().least_rows(Betting(), 0.02, 0.05)]
    assert each[0] > each[1] and mixed.least_rows(Betting(), 0.05, 0.05) == each[0]
    assert Several([(Error(), 1e-9), (Disagreement(), 0.5)]).least_rows(HoeffdingBentkus(), 0.5, 0.05) is None


def tamperings():
    def put(*place):
        def change(record):
            *parents, key, value = place
            for parent in parents:
                record = record[parent]
            record[key] = value

        return change

    return {
        "a lower level": put("loss", "risks", 1, "alpha", 0.01),
        "the largest level": put("loss", "risks", 0, "alpha", 0.05),
        "alpha": put("alpha", 0.05),
        "a risk left out": lambda record: record["loss"]["risks"].pop(),
        "a risk of a candidate": put("path", 1, "risks", 1, 0.0),
        "a p-value of a candidate": put("path", 1, "p_values", 1, 0.5),
        "none of its risks": lambda record: record["path"][0].pop("risks"),
        "another loss": put("loss", "risks", 1, "loss", {"name": "new-errors"}),
    }


@pytest.fixture(scope="module")
def found(certify):
    return certify(path=PATH, loss=["error", "disagreement"], alpha=[0.1, 0.05])


@pytest.mark.parametrize("name", tamperings())
def test_every_tampering_is_found(found, network, digits, name):
    record = copy.deepcopy(found.certificate.record)
    tamperings()[name](record)
    try:
        answer = verify(Certificate(record), found.network, digits[1], reference=network)
    except CertificateError:
        return
    assert not answer, answer


def test_losses_come_back_from_what_was_written():
    own = OwnLoss(lambda y_hat, y: y_hat[:, 0] * 0, "nothing")
    for loss in (
        BOTH,
        Several([(OfClass(3), 0.1), (Selective(0.7), 0.2)]),
        Several([(own, 0.1), (Error(), 0.2)]),
    ):
        again = loss_from(loss.to_json(), own)
        assert again.to_json() == loss.to_json() and again.alpha == loss.alpha
    whole = Several([(own, 0.1), (Error(), 0.2)])
    assert loss_from(whole.to_json(), whole) is whole
    assert loss_from(OfClass(2, Disagreement()).to_json()).to_json() == OfClass(2, Disagreement()).to_json()
    assert several_from(BOTH, 0.08) == (BOTH, 0.08) and several_from(BOTH, [0.08, 0.03]) == (BOTH, 0.08)


@pytest.mark.parametrize(
    ("loss", "alpha", "message"),
    [
        (["error", "disagreement"], [0.1], "1 levels for 2 losses. Give one for each"),
        (["error", "error"], [0.1, 0.2], "risk 1 is asked for twice: keep the lower of its levels"),
        (["error", "disagreement"], [0.1, 1.0], "the level of risk 1 is 1.0, and must lie between 0 and 1"),
        ([], 0.1, "give pairs of a loss and its level"),
        ([BOTH, "error"], 0.1, "risk 0 is .*, not a loss of"),
        (BOTH, 0.05, "the losses have levels of their own, the largest is 0.08"),
        ("error", [0.1, 0.2], r"alpha=\[0.1, 0.2\] must lie between 0 and 1"),
        ("several", 0.1, "'several' names no losses: give a list"),
        ("of-class", 0.1, "there is none of that name"),
    ],
)
def test_mistakes_are_told(certify, loss, alpha, message):
    with pytest.raises(CertificateError, match=message):
        certify(loss=loss, alpha=alpha)


def test_what_is_no_class_is_refused():
    for wrong, message in [
        (lambda: OfClass(-1), "give a class as a whole number"),
        (lambda: OfClass(True), "give a class as a whole number"),
        (lambda: OfClass(1, Selective()), "loss='selective' counts some rows only"),
        (lambda: Selective(0.5, loss=OfClass(1)), "loss= is of-class itself"),
        (lambda: each_class(0), "give the number of classes"),
    ]:
        with pytest.raises(CertificateError, match=message):
            wrong()
