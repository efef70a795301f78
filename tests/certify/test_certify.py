"""certify(): the sparsest network that the rule certifies, what it says, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import bayesprune as bp
from bayesprune.certify import CalibrationRows, TrainingRows, hash_of_network, hash_of_rows, hash_of_weights
from bayesprune.certify.losses import OwnLoss, Selective
from bayesprune.certify.paths import Units, Weights
from bayesprune.errors import CertificateError, CertificateWarning


def test_it_ships_the_sparsest_before_the_first_that_fails(certify, network, digits):
    _, (x, y) = digits
    found = certify()
    record, path = found.certificate.record, found.certificate.record["path"]
    assert [entry["name"] for entry in path[:2]] == ["0.0 % of the weights zero", "9.0 % of the weights zero"]
    for candidate, entry in zip(Weights().candidates(network, x), path, strict=True):
        errors = int((candidate.build()(x).argmax(1) != y).sum())
        assert entry["risk"] == errors / len(x)
        assert entry["p_value"] == pytest.approx(stats.binom.cdf(errors, len(x), 0.08), rel=1e-9)
    passes = np.array([entry["p_value"] <= 0.05 for entry in path])
    last = int(np.argmin(passes)) - 1
    assert 0 < last == record["certified"] and [e["certified"] for e in path] == [
        i <= last for i in range(50)
    ]
    assert hash_of_network(found.network) == record["network"]["sha256"]
    assert hash_of_weights(found.network) == path[last]["weights_sha256"]
    left = sum(int(p.count_nonzero()) for p in found.network.parameters())
    assert path[last]["sparsity"] == pytest.approx(1 - left / record["reference"]["parameters"])
    assert record["calibration"]["sha256"] == hash_of_rows(x, y)


def test_the_sentence_says_everything(certify):
    found = certify(loss=Selective(0.9, coverage=0.3), delta=0.1)
    chosen = found.certificate.chosen
    zero = 100 * (1 - chosen["parameters_left"] / chosen["parameters"])
    assert found.certificate.statement == (
        "With probability at least 90 % over the draw of the 897 calibration rows, the certified network, "
        "which "
        f"has all of the reference network's parameters, {round(zero, 4):.6g} % of them zero, "
        "is confident on at least 30 % of new "
        "rows, and predicts a wrong class for at most 8 % of the new rows on which it is confident to at "
        "least 0.9."
    )
    assert "coverage %" in str(found) and "→" in str(found)


@pytest.mark.parametrize("loss", ["error", "excess", "new-errors", "disagreement", "selective"])
@pytest.mark.parametrize("rule", ["fixed-sequence", "split-fixed-sequence", "multi-start", "bonferroni"])
def test_every_loss_goes_with_every_rule(certify, loss, rule):
    path = Weights(shares=[0.0, 0.5, 0.8, 0.95])
    found = certify(loss=loss, rule=rule, path=path, alpha=0.1)
    expected = "betting" if loss == "excess" else "binomial"
    assert found and found.certificate.record["p_value"]["name"] == expected
    record = found.certificate.record
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_the_unpruned_network_never_disagrees_with_itself(certify, digits):
    _, (x, _) = digits
    found = certify(loss="disagreement", rows=x)
    assert found.certificate.record["path"][0]["risk"] == 0.0


def test_none_is_honest_and_says_what_was_needed(certify):
    found = certify(alpha=0.01)
    record = found.certificate.record
    assert not found and found.network is None and record["certified"] is None and record["network"] is None
    assert found.certificate.statement.startswith("Nothing is guaranteed")
    needs, errors = record["next"], round(record["path"][0]["risk"] * 897)
    assert needs["candidate"] == 0 and needs["rows"] is None
    exact = stats.beta.ppf(0.95, errors + 1, 897 - errors)
    assert exact <= needs["alpha"] < exact + 2e-5
    assert "no number of rows" in str(found)


def test_the_rows_and_the_alpha_that_it_says_it_needed_are_enough(certify, network, digits):
    _, (x, y) = digits
    risk = float((network(x).argmax(1) != y).double().mean())
    alpha = risk + 0.01
    needs = certify(path=[network], alpha=alpha).certificate.record["next"]
    assert certify(path=[network], alpha=needs["alpha"])
    assert not certify(path=[network], alpha=needs["alpha"] - 3e-5)
    rows = needs["rows"]
    assert 897 < rows < 9000 and 0.005 < stats.binom.cdf(round(rows * risk), rows, alpha) < 0.1


def test_structured_paths_ship_smaller_networks(certify):
    found = certify(path="units", alpha=0.15)
    assert found.network[1].out_features < 40
    assert found.certificate.chosen["parameters_left"] == sum(p.numel() for p in found.network.parameters())


def test_given_networks_are_a_path(certify, network):
    broken = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    found = certify(path=[network, broken])
    assert found.network is network and [e["certified"] for e in found.certificate.record["path"]] == [
        True,
        False,
    ]


def test_a_loss_of_ones_own(certify):
    brier = OwnLoss(
        lambda y_hat, y: (y_hat.softmax(1) - nn.functional.one_hot(y, 10)).square().sum(1) / 2,
        "Brier score / 2",
    )
    found = certify(loss=brier)
    assert found and "mean 'Brier score / 2' of at most 8 %" in found.certificate.statement
    assert found.certificate.record["p_value"]["name"] == "betting"
    with pytest.raises(CertificateError, match=r"binomial p-value is for losses of 0 and 1"):
        certify(loss=brier, p_value="binomial")


def test_the_network_is_left_alone_and_so_is_its_mode(network, digits, certify):
    before = hash_of_network(network)
    network.train()
    found = certify()
    assert network.training and hash_of_network(network) == before
    network.eval()
    assert certify().certificate.record["path"] == found.certificate.record["path"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"alpha": 0.0}, "alpha=0.0 must lie between 0 and 1"),
        ({"alpha": 1.5, "delta": -1}, r"alpha=1.5.*delta=-1"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"alpha": True}, "alpha=True"),
        ({"alpha": 0.001}, "897 calibration rows are too few.*need 2,995"),
        ({"alpha": 0.01, "rule": "split-fixed-sequence", "delta": 0.01}, "need 917"),
        ({"alpha": 0.01, "rule": "bonferroni", "delta": 0.001}, r"need 1,077"),
        ({"rule": "hope"}, "none of that name"),
        ({"loss": "accuracy"}, "none of that name"),
        ({"p_value": "exact"}, "none of that name"),
        ({"path": 3}, "path=3"),
    ],
)
def test_what_cannot_be_asked_is_named(certify, changes, message):
    with pytest.raises(CertificateError, match=message):
        certify(**changes)


def test_labels_that_are_missing_or_wrong_are_named(certify, digits):
    _, (x, y) = digits
    with pytest.raises(CertificateError, match=r"'error' needs labels.*disagreement"):
        certify(rows=x)
    with pytest.raises(CertificateError, match="run from 0 to 19"):
        certify(rows=(x, y + 10 * (y == 9)))
    with pytest.raises(CertificateError, match="real targets"):
        certify(rows=(x, y + 0.5))


def test_outputs_that_are_not_finite_are_named(certify, network):
    broken = nn.Sequential(*network[:3], nn.Linear(40, 10))
    broken[3].weight.data.fill_(float("nan"))
    with pytest.raises(CertificateError, match=r"Network '1': its outputs for 897 of 897 rows hold NaN"):
        certify(path=[network, broken])
    with pytest.raises(CertificateError, match="prunings of one network"):
        certify(path=[nn.Sequential(nn.Flatten(), nn.Linear(784, 5))])


def test_rows_that_were_trained_on_are_refused_and_the_unknown_is_warned_about(network, digits, certify):
    (x_train, y_train), (x, y) = digits
    mixed = torch.cat([x, x_train[:7]]), torch.cat([y, y_train[:7]])
    for known in (x_train, TrainingRows.of(x_train)):
        with pytest.raises(CertificateError, match="7 of the 904 calibration rows were trained on"):
            certify(rows=mixed, trained_on=known)
    with pytest.warns(CertificateWarning, match="cannot be known"):
        found = bp.certify(network, (x, y), alpha=0.08, path=[network], progress=False)
    assert "not known" in found.certificate.record["calibration"]["held_out"]


def test_the_promise_holds_over_resampled_calibrations(network, digits):
    """120 calibrations of 200 rows, drawn with replacement from 897, on which the risks are the true ones.

    The share in which a network is certified whose risk is above alpha is at most delta = 0.2, at a
    false-alarm rate of 1e-4; and some are, or alpha would be nowhere near the risks.
    """
    _, (x, y) = digits
    path = Weights(shares=[0.0, 0.6, 0.7, 0.85])
    networks = [candidate.build() for candidate in path.candidates(network, x)]
    true = [float((pruned(x).argmax(1) != y).double().mean()) for pruned in networks]
    alpha, generator, false = true[2] - 1e-9, torch.Generator().manual_seed(9), 0
    for _ in range(120):
        rows = torch.randint(len(x), (200,), generator=generator)
        found = bp.certify(
            network,
            CalibrationRows(x[rows], y[rows], "resampled", "each"),
            alpha=alpha,
            delta=0.2,
            path=path,
            progress=False,
        )
        certified = [entry["certified"] for entry in found.certificate.record["path"]]
        false += any(passed and risk > alpha for passed, risk in zip(certified, true, strict=True))
    assert false > 5 and stats.binom.sf(false - 1, 120, 0.2) > 1e-4


def test_units_of_a_fit_are_certified(digits):
    (x, y), rows = digits
    prior = bp.priors.BernoulliGates(bp.priors.Flattening({"input": 1.0, "*": 3.0}))
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 24), nn.ReLU(), nn.Linear(24, 10))
    torch.manual_seed(0)
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Categorical(rows=len(x)))
    fit = bp.fit(gated, (x, y), epochs=12, batch_size=50, progress=False)
    from bayesprune.selection import InclusionProb

    path = Units(InclusionProb(), fit=fit)
    found = bp.certify(bp.prune(fit), rows, alpha=0.3, path=path, trained_on=x, progress=False)
    assert found.certificate.record["path"][0]["weights_sha256"] == hash_of_weights(bp.prune(fit))
    with pytest.raises(CertificateError, match=r"Cannot certify a FitResult.*bp.prune"):
        bp.certify(fit, rows, alpha=0.3)
    assert found and found.certificate.record["path_name"].startswith("the posterior's units")
