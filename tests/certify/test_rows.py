"""Hashes see every change; rows that were trained on are found."""

import hashlib
import struct
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from bayesprune.certify import CalibrationRows, TrainingRows, hash_of_network, hash_of_rows
from bayesprune.certify.hashes import digests_of_rows
from bayesprune.certify.rows import held_out
from bayesprune.errors import CertificateError, CertificateWarning

X = torch.randn(50, 3, 2, generator=torch.Generator().manual_seed(0))


def test_a_networks_hash_is_written_down_and_sees_every_change():
    network = nn.Linear(2, 1)
    network.weight.data, network.bias.data = torch.tensor([[1.0, -2.0]]), torch.tensor([0.5])
    parts = []
    for name, shape, numbers in (("bias", "1", [0.5]), ("weight", "1×2", [1.0, -2.0])):
        parts += [name.encode(), b"float32", shape.encode(), struct.pack(f"<{len(numbers)}f", *numbers)]
    content = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    first = hash_of_network(network)
    assert first == hashlib.sha256(content).hexdigest()
    changes = [
        lambda n: n.weight.data.mul_(-1),
        lambda n: n.bias.data.add_(1e-7),
        lambda n: n.double(),
        lambda n: setattr(n, "weight", nn.Parameter(n.weight.T.contiguous())),
        lambda n: n.register_buffer("more", torch.zeros(1)),
    ]
    for change in changes:
        other = nn.Linear(2, 1)
        other.load_state_dict(network.state_dict())
        assert hash_of_network(other) == first
        change(other)
        assert hash_of_network(other) != first


def test_rows_are_hashed_in_order_with_their_labels():
    y = torch.arange(50)
    assert hash_of_rows(X, y) == hash_of_rows(X.clone(), y.clone())
    others = [
        (X.flip(0), y.flip(0)),
        (X, None),
        (X, y + 1),
        (X.double(), y),
        (X.reshape(50, 6), y),
        (X[:-1], y[:-1]),
    ]
    assert len({hash_of_rows(*rows) for rows in [(X, y), *others]}) == 7


def test_rows_used_twice_are_found_whatever_their_order():
    known = TrainingRows.of(X[:30])
    assert known.among(X).tolist() == [True] * 30 + [False] * 20
    with pytest.raises(CertificateError, match="10 of the 20 calibration rows were trained on"):
        held_out(CalibrationRows.of(X[20:40].flip(0)), X[:30])
    assert "30 training rows" in held_out(CalibrationRows.of(X[30:]), known)
    assert (
        digests_of_rows(torch.tensor([[0.0], [-0.0]])).tolist().count(digests_of_rows(torch.zeros(1, 1))[0])
        == 2
    )
    assert len(np.unique(digests_of_rows(X))) == 50
    assert len(np.unique(digests_of_rows(torch.arange(20).reshape(10, 2)))) == 10


def test_digests_go_to_a_file_and_back(tmp_path):
    known = TrainingRows.of(X)
    known.write(tmp_path / "rows.safetensors")
    assert (tmp_path / "rows.safetensors").stat().st_size < 50 * 8 + 200
    assert np.array_equal(TrainingRows.read(tmp_path / "rows.safetensors").digests, known.digests)
    (tmp_path / "rows.safetensors").write_bytes(b"no")
    for name in ("rows.safetensors", "none.safetensors"):
        with pytest.raises(CertificateError, match=name):
            TrainingRows.read(tmp_path / name)


def test_nothing_known_is_said_aloud():
    with pytest.warns(CertificateWarning, match="cannot be known"):
        assert "not known" in held_out(CalibrationRows.of(X), None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert held_out(CalibrationRows(X, None, "by construction"), None) == "by construction"


@pytest.mark.parametrize(
    "rows, message",
    [
        ("rows.csv", "str, not a tensor"),
        ((X, [1, 2]), "y is list"),
        ((X, torch.zeros(49)), "x has 50 rows and y 49"),
        (X[:0], "there are none"),
        (torch.full((3, 2), float("nan")), "3 of the 3 inputs hold NaN"),
    ],
)
def test_rows_that_are_none_are_named(rows, message):
    with pytest.raises(CertificateError, match=message):
        CalibrationRows.of(rows)
