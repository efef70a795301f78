"""A fit that was stopped goes on to the bit-equal result, and refuses what is not its own checkpoint."""

import copy
import json

import pytest
import torch

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import (
    CheckpointError,
)
from bayesprune.svi import checkpoint as checkpoints
from tests.svi.fits import FAST, ROWS, data, fit, gated_for, network, same

RESUMED = {
    "plain": ({}, {}),
    "averaging": ({"averaging": 0.5}, {}),
    "Gaussian weights": ({"compact_weights": "normal", "compact_scale": 0.5, "averaging": 0.25}, {}),
    "arm": ({"estimator": "arm"}, {}),
    "linked gates": ({}, {"guide": bp.Autoregressive(lags=(1, 2), rank=1)}),
    "noise on units": ({"estimator": "curved"}, {"unit_noise": {"0": 0.5, "5": 0.2}}),
}


@pytest.mark.parametrize("settings, gating", RESUMED.values(), ids=RESUMED)
@pytest.mark.parametrize("stop", [2, 5], ids=["before the decision", "after it"])
def test_resumed_run_is_bit_equal_to_the_uninterrupted_one(settings, gating, stop, tmp_path):
    class Stop(Exception):
        pass

    def interrupt(epoch):
        if epoch.epoch == stop:
            raise Stop

    run = {"recipe": bp.Recipe(**FAST, **settings), "validation": data(32)}
    whole = fit(gated_for(**gating), **run)
    with pytest.raises(Stop):
        fit(gated_for(**gating), checkpoint=tmp_path, on_epoch=interrupt, **run)
    torch.manual_seed(99)  # another process would have another state
    resumed = fit(gated_for(**gating), checkpoint=tmp_path, resume=True, **run)
    same(whole, resumed)
    assert [e.validation for e in whole.history] == [e.validation for e in resumed.history]
    assert (whole.rounded, whole.decided_at) == (resumed.rounded, resumed.decided_at)
    again = fit(gated_for(**gating), checkpoint=tmp_path, resume=True, **run)  # nothing left to do
    same(whole, again)


def test_resumed_custom_prior_is_bit_equal(tmp_path):
    from tests.svi.small import shared_rate

    def gated():
        return bp.gate(
            network(), torch.zeros(1, 1, 6, 6), prior=shared_rate, likelihood=bp.Categorical(rows=ROWS)
        )

    torch.manual_seed(0)
    start = gated()
    whole = fit(copy.deepcopy(start))
    fit(copy.deepcopy(start), checkpoint=tmp_path)
    checkpoints.latest(tmp_path).unlink()
    same(whole, fit(copy.deepcopy(start), checkpoint=tmp_path, resume=True))


@pytest.mark.parametrize("relevance", [False, True])
def test_spike_and_slab_resumes_too_and_prunes(tmp_path, relevance):
    inclusion = priors.LayerAdaptive(strength=0.1)
    prior = priors.SpikeAndSlab(slab_scale=0.5, inclusion=inclusion, relevance=relevance)
    gated = bp.gate(network(), torch.zeros(1, 1, 6, 6), prior=prior, likelihood=bp.Categorical(rows=ROWS))
    whole = fit(gated)
    fit(gated, checkpoint=tmp_path)
    checkpoints.latest(tmp_path).unlink()
    same(whole, fit(gated, checkpoint=tmp_path, resume=True))
    for name, tensor in whole.gated.weight_tensors().items():
        assert whole.gated.log_scales_by_tensor()[name].shape == tensor.shape
    assert sum(whole.gated.kept().values()) < 28
    assert bp.prune(whole)(data()[0]).isfinite().all()


@pytest.fixture
def folder(tmp_path):
    fit(epochs=3, checkpoint=tmp_path)
    return tmp_path


def test_the_last_two_checkpoints_are_kept_and_hold_no_pickle(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["epoch-0002.safetensors", "epoch-0003.safetensors"]
    header = checkpoints.latest(folder).read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]["bayesprune"]


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "text", "foreign", "foreign metadata", "other format"]
)
def test_damaged_checkpoints_are_refused_by_name(folder, damage):
    import safetensors.torch as st

    path = checkpoints.latest(folder)
    whole = path.read_bytes()
    broken = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"not a checkpoint" * 10,
        "foreign": st.save({"w": torch.zeros(2)}),
        "foreign metadata": st.save({"w": torch.zeros(2)}, metadata={"bayesprune": "[1]"}),
        "other format": st.save({"w": torch.zeros(2)}, metadata={"bayesprune": '{"format": 99}'}),
    }[damage]
    path.write_bytes(broken)
    with pytest.raises(CheckpointError, match="epoch-0003"):
        fit(epochs=3, checkpoint=folder, resume=True)
    assert path.read_bytes() == broken  # nothing on disk is touched


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"epochs": 4}, "epochs=3"),
        ({"seed": 5}, "seed=0"),
        ({"batch_size": 8}, "batch_size=16"),
        ({"recipe": bp.Recipe(**{**FAST, "learning_rate": 0.5})}, "recipe="),
    ],
)
def test_checkpoint_of_another_run_is_refused_with_the_difference(folder, settings, named):
    with pytest.raises(CheckpointError, match=f"other settings: .*{named}"):
        fit(**{"epochs": 3, "checkpoint": folder, "resume": True, **settings})


def test_checkpoint_of_a_model_with_other_noise_is_refused(folder):
    with pytest.raises(CheckpointError, match=r"other settings: unit_noise=\{\} \(now \{'0': 0.2\}\)"):
        fit(gated_for(unit_noise={"0": 0.2}), epochs=3, checkpoint=folder, resume=True)


def test_without_a_checkpoint_resume_starts_afresh(tmp_path):
    same(fit(epochs=1), fit(epochs=1, checkpoint=tmp_path / "new", resume=True))
