"""Checkpoints: of one training a folder, on its own data, and not a bit of them may differ."""

import os
import random

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    RandomSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import CheckpointError, RunFolderError, SettingsError
from bayesprune.svi import checkpoint as checkpoints
from bayesprune.svi.batches import Batches
from bayesprune.svi.checkpoint_file import _wrong, pack, unpack
from bayesprune.svi.loader_noise import LoaderNoise
from bayesprune.svi.row_digest import BLOCK, _of_sequence, describe_rows
from bayesprune.svi.training import Training
from tests.svi.fits import FAST, same

ROWS = 48


def rows(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, 5, generator=generator)
    return x, (x[:, 0] > 0).long()


def gated():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
    prior = priors.BernoulliGates(priors.Flattening(2.0))
    return bp.gate(network, torch.zeros(1, 5), prior=prior, likelihood=bp.Categorical(rows=ROWS))


def fit(train=None, model=None, **settings):
    settings = {"epochs": 4, "batch_size": 16, "progress": False, "recipe": bp.Recipe(**FAST), **settings}
    return bp.fit(model or gated(), train or rows(), **settings)


class Stop(Exception):
    pass


def stop_after(epoch):
    def stop(record):
        if record.epoch == epoch:
            raise Stop

    return stop


def stopped(folder, train=None, after=2, **settings):
    with pytest.raises(Stop):
        fit(train, checkpoint=folder, on_epoch=stop_after(after), **settings)


# ---- one training a folder


def test_a_folder_used_twice_never_gives_the_other_trainings_result(tmp_path):
    x, y = rows()
    other = (x, 1 - y)
    fit(checkpoint=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=r"checkpoints of a training \(epoch-0004.* resume=True"):
        fit(other, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="other settings: data="):
        fit(other, checkpoint=tmp_path, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("which", ["inputs", "targets"])
def test_other_rows_of_the_same_number_are_refused(tmp_path, which):
    x, y = rows()
    stopped(tmp_path)
    other = {"inputs": (x.clone().index_fill_(0, torch.tensor([47]), 0.5), y), "targets": (x, 1 - y)}
    with pytest.raises(CheckpointError, match="other settings: data="):
        fit(other[which], checkpoint=tmp_path, resume=True)
    same(fit(), fit((x.clone(), y.clone()), checkpoint=tmp_path, resume=True))


def test_other_layers_of_the_same_sizes_are_refused(tmp_path):
    stopped(tmp_path)
    model = gated()
    network = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
    other = bp.gate(network, torch.zeros(1, 5), prior=model.prior, likelihood=model.likelihood)
    with pytest.raises(CheckpointError, match="other settings: network="):
        fit(model=other, checkpoint=tmp_path, resume=True)


def test_files_of_two_trainings_in_one_folder_are_refused(tmp_path):
    fit(checkpoint=tmp_path / "a")
    stopped(tmp_path / "b", after=1)
    (tmp_path / "b" / "epoch-0001.safetensors").rename(tmp_path / "a" / "epoch-0001.safetensors")
    with pytest.raises(CheckpointError, match="several trainings"):
        fit(checkpoint=tmp_path / "a", resume=True)


def test_a_renamed_file_is_refused(tmp_path):
    fit(checkpoint=tmp_path)
    (tmp_path / "epoch-0003.safetensors").rename(tmp_path / "epoch-0009.safetensors")
    with pytest.raises(CheckpointError, match=r"epoch-0009.* holds 3 epochs: it was renamed"):
        fit(checkpoint=tmp_path, resume=True)


def test_resume_without_a_folder_is_refused():
    with pytest.raises(SettingsError, match="checkpoint="):
        fit(resume=True)


def test_a_folder_in_use_is_refused_at_once(tmp_path):
    def again(record):
        with pytest.raises(RunFolderError, match="this process works in this folder now"):
            fit(checkpoint=tmp_path, resume=True)

    fit(checkpoint=tmp_path, on_epoch=again, epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0001.safetensors"]


def test_names_are_ordered_by_number_beyond_four_digits(tmp_path):
    for number in (9998, 9999, 10000, 10001):
        (tmp_path / f"epoch-{number}.safetensors").touch()
    (tmp_path / "epoch-x.safetensors").touch()
    assert checkpoints.latest(tmp_path).name == "epoch-10001.safetensors"
    assert [number for number, _ in checkpoints.numbered(tmp_path)] == [9998, 9999, 10000, 10001]


def test_the_newest_two_are_kept_beyond_four_digits(tmp_path):
    run = begun()
    record = fit(epochs=1).history[0]
    for epochs in (9999, 10000, 10001):
        run.history = [record] * epochs
        checkpoints.save(
            run, tmp_path, {}, "id", LoaderNoise(rows(), in_memory=True), {"scheduler": None, "scaler": None}
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "epoch-10000.safetensors",
        "epoch-10001.safetensors",
    ]


def test_what_killed_writers_left_is_swept(tmp_path):
    stopped(tmp_path)
    left = tmp_path / ".epoch-0003.safetensors.0123abcd.tmp"
    left.write_bytes(b"part")
    foreign = tmp_path / ".mine.txt.0123abcd.tmp"
    foreign.write_bytes(b"part")
    fit(checkpoint=tmp_path, resume=True)
    assert not left.exists() and foreign.exists()


def test_a_training_does_not_notice_its_checkpoints(tmp_path):
    """A prior of one's own is asked for its nats when a training begins, by draws."""
    from tests.svi.small import shared_rate

    def own():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
        return bp.gate(network, torch.zeros(1, 5), prior=shared_rate, likelihood=bp.Categorical(rows=ROWS))

    same(fit(model=own(), epochs=1), fit(model=own(), epochs=1, checkpoint=tmp_path))


def test_a_full_disk_costs_one_message_and_no_more_than_an_epoch(tmp_path, monkeypatch):
    real, written = os.fsync, []

    def fail(handle):
        written.append(handle)
        if len(written) > 4:  # file and folder of two checkpoints
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left") as caught:
            fit(checkpoint=tmp_path)
    assert caught.value.filename == str(tmp_path / "epoch-0003.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-0001.safetensors", "epoch-0002.safetensors"]
    same(fit(), fit(checkpoint=tmp_path, resume=True))


# ---- not a bit


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    stopped(folder, after=3)
    return checkpoints.latest(folder)


def test_one_flipped_bit_is_found_wherever_it_is(written, tmp_path):
    content, path = written.read_bytes(), tmp_path / written.name
    generator = random.Random(0)
    places = [generator.randrange(8 * len(content)) for _ in range(300)]
    places += range(8 * 8, 8 * 200, 5)  # the header: names, types, shapes
    for place in places:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=written.name):
            unpack(path)


def begun():
    batches = Batches(rows(), 16, torch.device("cpu"), 0)
    return Training(gated(), steps=4 * batches.steps, recipe=bp.Recipe(**FAST), rows=batches)


def cut(tensors, plain):
    tensors["velocity"] = tensors["velocity"][:-1]


EXP_AVG = "optimiser/network.0.weight/exp_avg"
FORGED = {
    "half precision": lambda t, p: t.update({"model/network.2.weight": t["model/network.2.weight"].half()}),
    "whole numbers": lambda t, p: t.update({"model/network.2.bias": t["model/network.2.bias"].long()}),
    "truth values": lambda t, p: t.update({"model/network.2.bias": t["model/network.2.bias"].bool()}),
    "NaN": lambda t, p: t["model/network.2.bias"].fill_(torch.nan),
    "another shape": cut,
    "a tensor too few": lambda t, p: t.pop("model/network.2.bias"),
    "a tensor too many": lambda t, p: t.update({"model/more": torch.zeros(1)}),
    "an unknown kind": lambda t, p: t.update({"more": torch.zeros(1)}),
    "a moment too few": lambda t, p: t.pop(EXP_AVG),
    "a moment of another type": lambda t, p: t.update({EXP_AVG: t[EXP_AVG].double()}),
    "a moment of another shape": lambda t, p: t.update({EXP_AVG: t[EXP_AVG][:-1]}),
    "a moment of nobody": lambda t, p: t.update({"optimiser/network.9.weight/exp_avg": torch.zeros(1)}),
    "a moment that is no number": lambda t, p: t[EXP_AVG].fill_(torch.nan),
    "other noise": lambda t, p: t.update({"torch_noise": torch.zeros(3, dtype=torch.uint8)}),
    "gate noise": lambda t, p: t.update({"gate_noise": torch.zeros(3, dtype=torch.uint8)}),
    "a loader's noise": lambda t, p: t.update({"loader/global": torch.zeros(3, dtype=torch.uint8)}),
    "another step": lambda t, p: p.update(step=p["step"] - 1),
    "a step that is no number": lambda t, p: p.update(step="3"),
    "a truth value for a number": lambda t, p: p.update(rounded=True),
    "no settings": lambda t, p: p.pop("settings"),
    "settings that are none": lambda t, p: p.update(settings=[1]),
    "epochs that are none": lambda t, p: p.update(epochs={}),
    "an epoch too many": lambda t, p: p["epochs"].append(dict(p["epochs"][0])),
    "an epoch without its loss": lambda t, p: p["epochs"][0].pop("nll"),
    "counts that are none": lambda t, p: p["epochs"][0].update(kept={"0": "6"}),
    "averages of no step": lambda t, p: t.update({"average/0.weight": torch.zeros(6, 5)}),
    "something more": lambda t, p: p.update(more=1),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_what_does_not_fit_is_refused_and_changes_nothing(written, tmp_path, forge):
    tensors, plain = unpack(written)
    settings = plain["settings"]
    forge(tensors, plain)
    path = tmp_path / written.name
    path.write_bytes(pack(tensors, plain))
    run = begun()
    before = {name: tensor.clone() for name, tensor in run.gated.state_dict().items()}
    noise = torch.get_rng_state()
    with pytest.raises(CheckpointError, match=written.name):
        checkpoints.restore_(run, run.batches, path, settings, LoaderNoise(rows(), in_memory=True))
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.gated.state_dict().items())
    assert (run.history, run.state.step) == ([], 0)
    assert torch.equal(torch.get_rng_state(), noise)


def test_the_file_is_safetensors_without_pickle(written):
    assert "velocity" in safetensors.torch.load(written.read_bytes())


# ---- loaders


class Augmented(Dataset):
    """Draws from Python's and NumPy's global random numbers, as many do."""

    def __len__(self):
        return ROWS

    def __getitem__(self, row):
        x, y = rows()
        return x[row] * (1 + 0.1 * random.random()) + 0.1 * np.random.rand(), y[row]


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


LOADERS = {
    "default": lambda: DataLoader(TensorDataset(*rows()), 16, shuffle=True),
    "own generator": lambda: DataLoader(TensorDataset(*rows()), 16, shuffle=True, generator=seeded()),
    "sampler's generator": lambda: DataLoader(
        TensorDataset(*rows()), 16,
        sampler=WeightedRandomSampler(torch.linspace(0.5, 1.5, ROWS), ROWS, generator=seeded()),
    ),
    "two generators": lambda: DataLoader(
        TensorDataset(*rows()), 16, generator=seeded(1),
        sampler=RandomSampler(range(ROWS), generator=seeded(2)),
    ),
    "global noise": lambda: DataLoader(Augmented(), 16, shuffle=True),
}  # fmt: skip


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_a_resumed_loader_goes_on_where_it_was(loader, tmp_path):
    random.seed(1), np.random.seed(1)
    whole = fit(loader())
    random.seed(1), np.random.seed(1)
    stopped(tmp_path, loader())
    random.seed(2), np.random.seed(2)  # another process
    same(whole, fit(loader(), checkpoint=tmp_path, resume=True))


def test_a_loader_with_other_generators_is_refused(tmp_path):
    stopped(tmp_path, LOADERS["own generator"]())
    with pytest.raises(CheckpointError, match="give the same DataLoader"):
        fit(LOADERS["default"](), checkpoint=tmp_path, resume=True)


@pytest.mark.parametrize(
    "own", [np.random.default_rng(0), np.random.RandomState(0), random.Random(0)], ids=lambda own: type(own)
)
def test_noise_that_cannot_be_kept_is_refused_by_name(tmp_path, own):
    data = TensorDataset(*rows())
    data.noise = own
    with pytest.raises(CheckpointError, match=r"train\.dataset\.noise is a .*torch\.Generator"):
        fit(DataLoader(data, 16), checkpoint=tmp_path)
    fit(DataLoader(data, 16), epochs=1)  # without checkpoints there is nothing to promise


# ---- what data are


class Held(Dataset):
    """As torchvision's data sets hold theirs."""

    def __init__(self, x, y):
        self.data, self.targets = x.numpy(), y.tolist()

    def __len__(self):
        return len(self.data)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x, y: (x, y),
        lambda x, y: (x.numpy(), y.numpy()),
        lambda x, y: {"x": x, "y": y},
        lambda x, y: bp.data.dataset.Split(x, y),
        lambda x, y: DataLoader(TensorDataset(x, y), 16),
        lambda x, y: DataLoader(Subset(TensorDataset(x, y), list(range(ROWS))), 16),
        lambda x, y: DataLoader(Held(x, y), 16),
    ],
    ids=["tensors", "arrays", "dict", "split", "loader", "subset", "held"],
)
def test_every_byte_of_data_in_memory_counts(wrap):
    x, y = rows()
    one = describe_rows(wrap(x, y))
    assert describe_rows(wrap(x.clone(), y.clone())) == one
    less = x.clone()
    less[-1, -1] += 1e-6
    assert describe_rows(wrap(less, y)) != one
    assert describe_rows(wrap(x, torch.cat([y[:-1], 1 - y[-1:]]))) != one
    assert describe_rows(wrap(x.double(), y)) != one


def test_rows_are_the_same_however_they_lie_in_memory():
    x = torch.randn(3, 2 * BLOCK // 4, generator=seeded())
    assert describe_rows((x.t(), x)) == describe_rows((x.t().contiguous(), x.t().contiguous().t()))
    for empty in (
        torch.zeros(0, 3),
        torch.zeros(3, 0),
        torch.tensor(1.0),
        torch.zeros(2, dtype=torch.bfloat16),
    ):
        assert describe_rows((empty,)) == describe_rows((empty.clone(),))


def test_of_other_data_their_kind_and_number_are_known():
    assert describe_rows(Augmented()) == {"kind": "Augmented", "rows": ROWS}
    assert describe_rows(iter([])) == {"kind": "list_iterator", "rows": None}


def test_what_a_checkpoint_lacks_or_has_too_much_is_named():
    assert _wrong([], {"a": int}) == ["everything"]
    assert _wrong({"a": 1, "z": 0, "c": "3"}, {"a": int, "b": float, "c": int}) == ["b", "c", "z"]
    assert _wrong({"a": 1}, {"a": float}) == []


def test_up_to_sixteen_tensors_of_a_sequence_are_looked_at():
    parts = [torch.full((2,), float(number)) for number in range(17)]
    assert _of_sequence(parts[:16]).keys() == {str(number) for number in range(16)}
    assert _of_sequence(parts) == {}
    assert _of_sequence([1.0, 2.0])["values"].tolist() == [1.0, 2.0]


def test_every_part_of_data_put_together_is_looked_at():
    def described(second):
        first = TensorDataset(torch.zeros(2, 3))
        return describe_rows(ConcatDataset([first, TensorDataset(torch.full((2, 3), second))]))

    assert described(1.0) == described(1.0) != described(2.0)
