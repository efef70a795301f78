"""A row that was trained on is found in whatever layout, type or container it comes; the rest is refused or
said."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

import bayesprune as bp
from bayesprune.certify import CalibrationRows, TrainingRows, verify
from bayesprune.certify.rows import held_out
from bayesprune.data import Split
from bayesprune.errors import CertificateError
from bayesprune.rows.digests import TYPES, coarsest, digests_in, numbers_of, repeated

X = torch.rand(40, 2, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(40) % 3
PIXELS = torch.randint(256, (40, 1, 6, 6), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


@pytest.fixture(scope="module")
def memorised():
    """A network that knows random labels by heart, and is no better than a guess on new rows."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, 8, generator=generator), torch.randint(2, (300,), generator=generator)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 200), nn.ReLU(), nn.Linear(200, 2))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()
    assert float((network(x).argmax(1) != y).double().mean()) < 0.05
    return network, x, y


FORMS = {
    "as they are": lambda x, y: x,
    "float64": lambda x, y: x.double(),
    "float16": lambda x, y: x.half(),
    "bfloat16": lambda x, y: x.bfloat16(),
    "a half-precision round trip": lambda x, y: x.half().float(),
    "another layout": lambda x, y: x.view(300, 2, 4),
    "another layout and type": lambda x, y: x.view(300, 1, 8, 1).double(),
    "numpy": lambda x, y: x.numpy(),
    "numpy, float64": lambda x, y: x.double().numpy(),
    "a pair": lambda x, y: (x, y),
    "a pair of numpy": lambda x, y: (x.numpy(), y.numpy()),
    "a Split": lambda x, y: Split(x, y),
    "a TensorDataset": lambda x, y: TensorDataset(x, y),
    "a list of rows": lambda x, y: DataLoader([(a, b) for a, b in zip(x, y, strict=True)]),
    "a loader": lambda x, y: DataLoader(TensorDataset(x.double(), y), batch_size=7),
    "a loader that drops rows": lambda x, y: DataLoader(
        TensorDataset(x, y), batch_size=299, shuffle=True, drop_last=True
    ),
    "a loader that draws": lambda x, y: DataLoader(
        TensorDataset(x, y), sampler=WeightedRandomSampler(torch.ones(300), 300), batch_size=50
    ),
    "digests": lambda x, y: TrainingRows.of(x),
    "digests of float64": lambda x, y: TrainingRows.of(x.double()),
}


@pytest.mark.parametrize("form", FORMS)
def test_memorised_rows_are_never_certified(memorised, form):
    network, x, y = memorised
    with pytest.raises(CertificateError, match="300 of the 300 calibration rows were trained on"):
        bp.certify(network, (x, y), alpha=0.15, trained_on=FORMS[form](x, y), progress=False)


def test_a_loaders_subset_is_what_was_trained_on_and_no_random_number_is_drawn():
    loader = DataLoader(TensorDataset(X, Y), sampler=SubsetRandomSampler(range(30)), batch_size=8)
    state = torch.get_rng_state()
    known = TrainingRows.of(loader)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(known) == 30 and known.among(X).tolist() == [True] * 30 + [False] * 10


@pytest.mark.parametrize("trained", [*TYPES, "uint8", "int64"])
@pytest.mark.parametrize("calibrated", [*TYPES, "uint8", "int64"])
def test_whole_numbers_are_the_same_in_every_type(trained, calibrated):
    """Pixels from 0 to 255 as numbers: no type rounds one of them."""
    known = TrainingRows.of(PIXELS[:25].to(getattr(torch, trained)))
    found = known.among(PIXELS.to(getattr(torch, calibrated)))
    assert found.tolist() == [True] * 25 + [False] * 15


@pytest.mark.parametrize("trained", TYPES)
@pytest.mark.parametrize("calibrated", TYPES)
def test_rows_are_found_in_every_pair_of_types_or_refused(trained, calibrated):
    known = TrainingRows.of(X[:25].double().to(TYPES[trained]))
    rows = X.double().to(TYPES[calibrated])
    if {trained, calibrated} == {"float16", "bfloat16"}:
        with pytest.raises(CertificateError):  # what both roundings leave alike is found
            held_out(CalibrationRows.of(rows), known)
    else:
        assert known.among(rows).tolist() == [True] * 25 + [False] * 15


def test_two_half_precisions_cannot_be_compared():
    wide = torch.rand(20, 200, generator=torch.Generator().manual_seed(3))
    for one, other in ((wide.half(), wide.bfloat16()), (wide.bfloat16(), wide.half())):
        with pytest.raises(CertificateError, match="one half precision and the calibration rows in"):
            held_out(CalibrationRows.of(one), other)


def test_files_are_compared_as_what_they_were_written_of(tmp_path):
    for name, dtype in {**TYPES, "int32": torch.int32}.items():
        rows = (PIXELS if name == "int32" else PIXELS / 255).to(dtype)
        TrainingRows.of(rows[:25]).write(tmp_path / name)
        known = TrainingRows.read(tmp_path / name)
        assert known.type == name and known.shape == (1, 6, 6)
        assert known.among(rows).tolist() == [True] * 25 + [False] * 15
        assert known.among(rows.flatten(1)).sum() == 25


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.rand(5, 9), r"have 8 numbers each, \(2, 4\), and the calibration rows 9"),
        (torch.rand(5, 4, 2), r"shape \(2, 4\) and the calibration rows \(4, 2\): in which order"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(rows, message):
    with pytest.raises(CertificateError, match=message):
        held_out(CalibrationRows.of(rows), X)


def test_what_stands_in_another_order_is_found_where_it_is_the_same_in_memory():
    with pytest.raises(CertificateError, match="40 of the 40"):
        held_out(CalibrationRows.of(X.view(40, 4, 2)), X)


def test_the_sentence_says_what_digests_do_not_see():
    for unseen in (X + 1e-3, X.flip(2), 255 * X):
        said = held_out(CalibrationRows.of(unseen), X)
        assert "none of them is among the 40 training rows, by digests of their numbers in float32" in said
        assert "flipped, moved, put in another order, rescaled or given noise are not recognised" in said


def test_rows_of_unequal_forms_cannot_be_known():
    parts = [(torch.rand(4, 3), torch.zeros(4)), (torch.rand(4, 5), torch.zeros(4))]
    with pytest.raises(CertificateError, match="unequal shapes or types"):
        TrainingRows.of(DataLoader(parts, batch_size=None))
    with pytest.raises(CertificateError, match="trained_on"):
        TrainingRows.of("rows.csv")


def test_digests_are_of_numbers_alone():
    for name in TYPES:
        one = digests_in(numbers_of(X), name)
        strided = X.transpose(1, 2).contiguous().transpose(1, 2)
        assert np.array_equal(one, digests_in(numbers_of(strided), name))
        assert len(np.unique(one)) == 40
    zeros = torch.tensor([[0.0, 1.0], [-0.0, 1.0]])
    assert len(np.unique(digests_in(zeros, "float32"))) == 1
    complex_ = torch.complex(X, 1 - X).flatten(1)
    assert numbers_of(complex_).shape == (40, 16) and coarsest(numbers_of(complex_)) == "float32"


def test_every_block_of_rows_is_looked_at(monkeypatch):
    """Of many numbers a block at a time: what is in the last rows counts as what is in the first."""
    whole = torch.arange(40.0)[:, None] % 7
    thirds = torch.cat([whole, torch.tensor([[1 / 3]])])
    expected = {name: digests_in(numbers_of(X), name) for name in TYPES}
    for block in (2**20, 16, 1):
        monkeypatch.setattr("bayesprune.rows.digests.BLOCK", block)
        assert (coarsest(whole), coarsest(thirds)) == ("bfloat16", "float32")
        assert all(np.array_equal(digests_in(numbers_of(X), name), expected[name]) for name in TYPES)
        assert repeated(whole).tolist() == [False] * 7 + [True] * 33
        assert TrainingRows.of(whole).among(thirds).tolist() == [True] * 40 + [False]
        assert TrainingRows.of(thirds).among(thirds.half().float()).tolist() == [True] * 41


@pytest.mark.parametrize("coarse_first", [True, False])
def test_parts_of_different_types_are_known_in_one(coarse_first):
    """A pass is read in parts; one of them holds numbers that a coarser type does not."""
    whole, thirds = torch.arange(8192.0)[:, None] % 9, 1 / torch.arange(3.0, 99.0, 3.0)[:, None]
    parts = (whole, thirds) if coarse_first else (thirds.repeat(256, 1), whole[:40])
    known = TrainingRows.of(torch.cat(parts))
    assert list(known.digests) == ["bfloat16", "float16", "float32"]
    assert {len(found) for found in known.digests.values()} == {sum(map(len, parts))}
    assert all((np.diff(found.astype(object)) >= 0).all() for found in known.digests.values()), "sorted"
    assert known.among(thirds).all() and not known.among(thirds * (1 + 1e-6)).any()


def test_rows_that_are_not_among_them_may_have_dimensions_of_one():
    known = TrainingRows.of(PIXELS[:20])
    for rows in (PIXELS[20:], PIXELS[20:, 0], PIXELS[20:].flatten(1), PIXELS[20:, :, None]):
        assert not known.among(rows).any()


def test_a_loader_makes_its_rows_by_its_own_function():
    def pairs(rows):
        return torch.stack([row["x"] for row in rows]), torch.stack([row["y"] for row in rows])

    dicts = [{"x": x, "y": y} for x, y in zip(X, Y, strict=True)]
    loader = DataLoader(dicts, batch_size=16, drop_last=True, shuffle=True, collate_fn=pairs)
    assert TrainingRows.of(loader).among(X).all()


def repeat(x, y, times):
    return torch.cat([x] * times), torch.cat([y] * times)


@pytest.mark.parametrize(("rows", "times"), [(40, 25), (100, 4)])
def test_rows_that_repeat_are_refused_or_counted_once(network, digits, rows, times):
    (x_train, _), (x, y) = digits
    first = x[:rows], y[:rows]
    settings = {"alpha": 0.08, "path": [network], "trained_on": x_train, "progress": False}
    with pytest.raises(CertificateError) as refused:
        bp.certify(network, repeat(*first, times), **settings)
    told = f"{rows * (times - 1):,} of the {rows * times:,} calibration rows equal an earlier one"
    assert f"{told}, first row {rows}" in str(refused.value)
    once = CalibrationRows.of(repeat(*first, times), repeats="once")
    assert len(once) == rows and torch.equal(once.x, first[0]) and torch.equal(once.y, first[1])
    loose = {**settings, "alpha": 0.3}
    found, alone = bp.certify(network, once, **loose), bp.certify(network, first, **loose)
    calibration = found.certificate.record["calibration"]
    assert (calibration["rows"], calibration["repeats"]) == (rows, "once")
    assert found.certificate.record["path"] == alone.certificate.record["path"]
    answer = verify(found.certificate, network, repeat(*first, times))
    assert answer and "left out, as copies" in str(answer)


def test_draws_that_came_out_alike_count_where_somebody_says_so(network, digits):
    (x_train, _), (x, y) = digits
    rows = CalibrationRows.of(repeat(x[:100], y[:100], 2), repeats="each")
    found = bp.certify(network, rows, alpha=0.2, path=[network], trained_on=x_train, progress=False)
    calibration = found.certificate.record["calibration"]
    assert (calibration["rows"], calibration["repeats"]) == (200, "each")
    answer = verify(found.certificate, network, (rows.x, rows.y))
    assert answer and "each as a draw of its own" in str(answer)
    assert CalibrationRows.of((x, y), repeats="once").repeats == "none"
    with pytest.raises(CertificateError, match="refuse, once, each"):
        CalibrationRows.of((x, y), repeats="twice")


def test_repeats_are_found_in_every_layout():
    with pytest.raises(CertificateError, match="1 of the 41"):
        CalibrationRows.of(torch.cat([X, X[:1]]))
    with pytest.raises(CertificateError, match=r"1 of the 3 .* first row 2"):
        CalibrationRows.of(DataLoader(TensorDataset(torch.tensor([[0.0], [1.0], [-0.0]]), Y[:3])))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"digests": torch.arange(4)}, "older bayesprune"),
        ({"shape": torch.tensor([2, 4])}, "it has no type"),
        ({"float32": torch.arange(4.0)}, "float32 is"),
        ({"bfloat16": torch.zeros(4, dtype=torch.bfloat16)}, "bfloat16 is"),
        ({"float16": None}, "some types are missing"),
        ({"float16": torch.arange(3)}, "unequal numbers"),
        ({"float16": torch.arange(40).view(8, 5)}, "float16 is"),
        ({"shape": torch.tensor([2, -4])}, "its shape or type is none"),
        ({"more": torch.arange(4)}, "'more' is unknown"),
    ],
)
def test_damaged_files_of_training_rows_are_named(tmp_path, content, message):
    path = tmp_path / "rows.safetensors"
    TrainingRows.of(X).write(path)
    whole = load_file(path)
    if set(content) == {"digests"} or "it has no" in message:
        whole = {}
    whole |= content
    save_file({name: tensor for name, tensor in whole.items() if tensor is not None}, path)
    with pytest.raises(CertificateError, match=message) as refused:
        TrainingRows.read(path)
    assert str(path) in str(refused.value)
