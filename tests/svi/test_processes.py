"""Several processes train one model to equal bits, and refuse by name what would part them."""

import re

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import bayesprune as bp
from bayesprune.errors import DataError
from bayesprune.rows.counts import rows_of_loader
from tests.svi.fits import data, gated_for
from tests.svi.together import STEPS, fitted, resumed, run, whole

EXPECTED = {
    "steps": r"ProcessError: At the start, .* differ in steps: 200 and 400",
    "recipe": r"ProcessError: .* differ in recipe.decide: 0.6 and 0.3",
    "rows": r"ProcessError: .* rows of the likelihood: 96 and 192",
    "price": r"ProcessError: .* differ in prior: ",
    "model": r"ProcessError: .*network.1.weight: 'torch.float32 \[7, 36\]' and '.* \[8, 36\]'",
    "optimizer": r"ProcessError: .* optimizer: \['Adam', .* and \['SGD'",
    "seed": r"ProcessError: .* differ in seed: 0 and 1",
    "weights": r"ProcessError: At a look at the states, step 3, .* differ in sum of 1.weight",
    "clipped": r"SettingsError: scaler.unscale_ was called before .*training.reduce\(\)",
    "scaled by others": r"SettingsError: Losses were multiplied by 1024, .* call training.reduce\(\) after",
    "averaged early": r"SettingsError: Gradients were averaged over 1 batches, and 2 were taken",
    "DDP": r"SettingsError: .*DistributedDataParallel around the gated model.* \.module",
    "FSDP2": r"SettingsError: log_odds and 6 more are shared out .*leave that out",
    "measured": r"SettingsError: 2 processes would each measure .*macs=",
    "alone": r"^$",
    "no group": r"SettingsError: processes=3 must be a process group",
}


def together(folder, case, **settings):
    """What both processes of a case have saved."""
    texts, saved = run(folder, case, **settings)
    assert not any(texts), "\n".join(texts)
    return saved


def alike(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_two_at_unequal_shares_of_a_batch_are_one_at_the_whole(tmp_path):
    """After 200 steps, removals and the decision, given the same noise; and equal to the bit in both."""
    first, second = together(tmp_path, "whole")
    one = whole(0, 1)
    alike(first, second)
    assert 0 < int(one["alive"].sum()) < len(one["alive"]) and torch.equal(one["alive"], first["alive"])
    for name, value in one.items():
        torch.testing.assert_close(first[name], value, atol=1e-5, rtol=1e-5, msg=name)


def test_what_a_prior_draws_is_averaged(tmp_path):
    first, second = together(tmp_path, "drawn")
    alike(first, second)
    assert int(first["steps"]) == 30


def test_processes_of_other_beginnings_and_noise_stay_equal_to_the_bit(tmp_path):
    """Statistics of batch normalisation too, of which each has seen its own rows."""
    first, second = together(tmp_path, "others_beginning")
    noise = first.pop("noise"), second.pop("noise")
    assert not torch.equal(*noise)
    alike(first, second)
    assert int(first["steps"]) == 200 and not bool(first["alive"].all())


def test_sections_of_trained_networks_are_judged_by_the_rows_of_all(tmp_path):
    first, second = together(tmp_path, "trained_first")
    own = first.pop("own"), second.pop("own")
    assert not torch.equal(*own)
    alike(first, second)
    assert int(first["layers"]) == 0


def test_one_that_was_killed_goes_on_to_the_bit_equal_result_on_any_number(tmp_path):
    texts, unbroken = run(tmp_path, "killed")
    assert "Process 0 of 2 cannot reach the others" in texts[0] and "go on from the last" in texts[0]
    first, second = together(tmp_path, "resumed")
    alike(first, second)
    alike(first, unbroken[0])
    assert int(resumed(0, 1, tmp_path)["steps"]) == STEPS


def test_processes_that_were_not_told_the_same_are_refused_by_name(tmp_path):
    first, second = together(tmp_path, "refusals")
    assert first == second and first.keys() == EXPECTED.keys()
    for name, message in EXPECTED.items():
        with pytest.raises(ValueError, match=message):
            raise ValueError(first[name])


def test_one_that_takes_fewer_steps_is_refused_by_name(tmp_path):
    texts, _ = run(tmp_path, "other_steps")
    for text in texts:
        assert "Process 0 is at a step after 5 steps, and process 1 at a removal after 5" in text


def test_fit_shares_out_rows_and_goes_on_from_what_the_first_process_wrote(tmp_path):
    first, second = together(tmp_path, "fitted")
    refused = {name: (first.pop(name), second.pop(name)) for name in [n for n in first if "/" not in n]}
    alike(first, second)
    for name, value in first.items():
        if name.startswith("unbroken/"):
            assert torch.equal(value, first[name.replace("unbroken", "resumed")]), name
    assert not bool(first["dealt/alive"].all()) and not bool(first["unbroken/alive"].all())
    for name, message in (
        ("same loader", "share 1 of 1, and this is process {} of 2 .*DistributedSampler"),
        ("too small", "batch_size=1 is divided among 2 processes"),
        ("other data", "processes 0 and 1 differ in data"),
    ):
        for rank, text in enumerate(refused[name], start=1):
            assert re.search(message.format(rank), text), text
    assert "holds the checkpoints of a training" in refused["not resumed"][0]
    assert "EndedElsewhereError: Process 0 has failed, and says why" in refused["not resumed"][1]
    alone = fitted(0, 1, tmp_path)  # on another number of processes
    assert len(alone.history) == 6 and alone.history[-1].undecided == 0


def test_moves_are_decided_once_by_the_rows_of_all(tmp_path):
    """Equal to the bit in both; and what one process decides alone."""
    first, second = together(tmp_path, "moved")
    alike(first, second)
    for name in ("memory", "dealt", "budget", "own loop"):
        assert int(first[f"{name}/rows"]) == 200
        assert first[f"{name}/alive"].tolist() == [True, False, True, False, False, False], name
        assert first[f"{name}/nats"].numel()


def test_a_share_counts_as_the_whole_and_one_process_does_not_train_on_it():
    x, y = data()
    for shuffle, batch, drop, rows in ((True, 16, True, 95), (False, 16, False, 95), (False, 10, True, 80)):
        dataset = TensorDataset(x[:95], y[:95])
        sampler = DistributedSampler(dataset, num_replicas=2, rank=0, shuffle=shuffle)
        loader = DataLoader(dataset, batch_size=batch, sampler=sampler, drop_last=drop)
        assert rows_of_loader(loader).rows == rows
    with pytest.raises(DataError, match="share 1 of 2, and this is process 1 of 1"):
        bp.fit(gated_for(rows=80), loader, epochs=1, progress=False)
