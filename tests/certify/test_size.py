"""What became smaller is told apart from what only became zero."""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.certify import verify
from bayesprune.certify.paths import Weights
from bayesprune.certify.size import kept


def test_zeros_inside_dense_tensors_make_nothing_smaller(certify, network):
    found = certify(path=Weights(shares=[0.0, 0.5]))
    record, chosen = found.certificate.record, found.certificate.chosen
    whole = sum(p.numel() for p in network.parameters())
    assert record["network"]["shapes"] == {}
    assert (
        record["network"]["parameters"] == record["reference"]["parameters"] == whole == chosen["parameters"]
    )
    assert record["network"]["macs"] == record["reference"]["macs"] == 784 * 40 + 40 * 10
    zeros = sum(int((p == 0).sum()) for p in found.network.parameters())
    assert chosen["parameters"] - chosen["parameters_left"] == zeros > 15_000
    assert f"has all of the reference network's parameters, {100 * zeros / whole:.6g} % of them zero" in str(
        found.certificate.statement
    ).replace("\n", " ")
    text = " ".join(str(found).split())
    assert "Nothing became smaller: every tensor keeps its shape" in text
    assert f"{zeros:,} of its {whole:,} numbers are zeros inside dense tensors" in text
    assert "save neither memory nor time by themselves" in text and 'path="units"' in text


def test_units_make_tensors_smaller(certify, network, digits):
    found = certify(path="units", alpha=0.15)
    record, left = found.certificate.record, found.network[1].out_features
    whole = 784 * 40 + 40 + 400 + 10
    assert left < 40 and record["network"]["shapes"] == {
        "1.weight": [[40, 784], [left, 784]], "1.bias": [[40], [left]], "3.weight": [[10, 40], [10, left]]
    }  # fmt: skip
    assert record["network"]["macs"] == 784 * left + left * 10
    parameters = 784 * left + left + left * 10 + 10
    assert record["network"]["parameters"] == found.certificate.chosen["parameters"] == parameters
    text = " ".join(str(found).split())
    assert f"Smaller: {whole:,} → {parameters:,} parameters, 31,760 → {794 * left:,} MACs a row" in text
    assert f"1.weight 40×784 → {left}×784" in text and "zeros" not in text.split("Smaller:")[1].split(".")[0]
    answer = verify(found.certificate, found.network, digits[1], reference=network)
    assert answer and "✓ size: Smaller:" in str(answer)


def test_both_are_told_where_both_happened(certify, network):
    small = certify(path="units", alpha=0.15).network
    sparse = Weights(shares=[0.4]).candidates(small, torch.zeros(1, 1, 28, 28))[0].build()
    found = certify(path=[network, sparse], alpha=0.5)
    text = " ".join(str(found).split())
    assert found.network is sparse and "Smaller: " in text and "zeros inside dense tensors" in text
    assert "of the reference network's parameters, " in found.certificate.statement


@pytest.mark.parametrize(
    ("held", "left", "told"),
    [
        (200, 200, "has all of the reference network's parameters"),
        (50, 25, "has 25 % of the reference network's parameters, 50 % of them zero"),
    ],
)
def test_the_words_for_it(held, left, told):
    assert kept({"parameters": held, "parameters_left": left}, 200) == told


def test_a_network_without_parameters_has_a_size(digits):
    (x_train, _), (x, _) = digits
    network = nn.Sequential(nn.Flatten())
    found = bp.certify(
        network, x, alpha=0.3, loss="disagreement", path=[network], trained_on=x_train, progress=False
    )
    assert found and found.certificate.chosen["sparsity"] == 0.0 and "Nothing became smaller" in str(found)
