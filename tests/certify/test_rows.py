"""Hashes see every change; rows that were trained on are found."""

import hashlib
import struct
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from bayesprune.certify import CalibrationRows, TrainingRows, hash_of_rows, hash_of_weights
from bayesprune.certify.rows import held_out
from bayesprune.errors import CertificateError, CertificateWarning

X = torch.randn(50, 3, 2, generator=torch.Generator().manual_seed(0))


def test_the_hash_of_weights_is_written_down_and_sees_every_change():
    network = nn.Linear(2, 1)
    network.weight.data, network.bias.data = torch.tensor([[1.0, -2.0]]), torch.tensor([0.5])
    parts = []
    for name, shape, numbers in (("bias", "1", [0.5]), ("weight", "1×2", [1.0, -2.0])):
        parts += [name.encode(), b"float32", shape.encode(), struct.pack(f"<{len(numbers)}f", *numbers)]
    content = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    first = hash_of_weights(network)
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
        assert hash_of_weights(other) == first
        change(other)
        assert hash_of_weights(other) != first


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


def test_digests_go_to_a_file_and_back(tmp_path):
    known = TrainingRows.of(X)
    known.write(tmp_path / "rows.safetensors")
    assert (tmp_path / "rows.safetensors").stat().st_size < 3 * 50 * 8 + 500
    again = TrainingRows.read(tmp_path / "rows.safetensors")
    assert again.digests.keys() == known.digests.keys() == {"bfloat16", "float16", "float32"}
    assert all(np.array_equal(again.digests[name], known.digests[name]) for name in known.digests)
    assert (again.shape, again.type) == (known.shape, known.type) == ((3, 2), "float32")
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
        ("rows.csv", "Calibration rows: str"),
        ((X, [1, 2]), "Calibration rows: the targets are list"),
        ((X, torch.zeros(49)), "50 rows of inputs and 49 of targets"),
        (X[:0], "no rows"),
        (torch.full((3, 2), float("nan")), "the inputs hold NaN or infinity, first in row 0"),
    ],
)
def test_rows_that_are_none_are_named(rows, message):
    with pytest.raises(CertificateError, match=message):
        CalibrationRows.of(rows)
