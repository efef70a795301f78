"""What became smaller is told apart from what only became zero."""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.certify import verify
from bayesprune.certify.paths import Weights
from bayesprune.certify.size import kept, macs_of, shapes_of, smaller


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


class ByHand(nn.Module):
    """Multiplies by weights in a way that nobody counts."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3, 4))

    def forward(self, x):
        return (x[:, None] * self.w).sum(-1)


def test_macs_that_cannot_be_counted_are_no_number():
    assert macs_of(ByHand(), torch.ones(2, 4)) is None
    assert macs_of(nn.Linear(4, 3), torch.ones(2, 4)) == 12


def record_of(before, after, shapes, zeros=0):
    chosen = {"parameters": 50, "parameters_left": 50 - zeros}
    sizes = {"reference": {"parameters": 90, "macs": before}, "certified": 0, "path": [chosen]}
    return sizes | {"network": {"parameters": 50, "macs": after, "shapes": shapes}}


SHAPES = {f"{layer}.weight": [[9, 4], [5, 4]] for layer in range(6)}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (
            record_of(8, 8, {}),
            "Nothing became smaller: every tensor keeps its shape, and no number became zero.",
        ),
        (
            record_of(8, 4, {"a": [[9], []]}),
            "Smaller: 90 → 50 parameters, 8 → 4 MACs a row (a 9 → one number).",
        ),
        (
            record_of(8, 4, {"a": [[2, 3], None]}),
            "Smaller: 90 → 50 parameters, 8 → 4 MACs a row (a 2×3 → none).",
        ),
        (
            record_of(8, None, {"a": [[9], [5]]}),
            "Smaller: 90 → 50 parameters, MACs that cannot be counted (a 9 → 5).",
        ),
        (
            record_of(None, 4, {"a": [[9], [5]]}),
            "Smaller: 90 → 50 parameters, MACs that cannot be counted (a 9 → 5).",
        ),
    ],
)
def test_the_words_for_what_became_smaller(record, told):
    assert smaller(record) == told


def test_of_many_tensors_a_few_are_named():
    text = smaller(record_of(8, 4, SHAPES, zeros=7))
    assert (
        text.count("9×4 → 5×4") == 4 and ", and 2 more). 7 of its 50 numbers are zeros inside dense" in text
    )
    assert "more" not in smaller(record_of(8, 4, dict(list(SHAPES.items())[:4])))


def test_shapes_that_differ_are_named_and_those_alone():
    before, after = nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 2))
    assert shapes_of(before, before) == {}
    assert shapes_of(before, nn.Linear(4, 2)) == {"bias": [[3], [2]], "weight": [[3, 4], [2, 4]]}
    assert shapes_of(before, after)["0.bias"] == [None, [2]] and shapes_of(before, after)["bias"] == [
        [3],
        None,
    ]
