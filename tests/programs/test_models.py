"""Every model that ships, run small: from the command line as it is, and at prices of certain effect."""

import json
from pathlib import Path

import pyro
import pytest
import torch

import bayesprune as bp
from bayesprune.cli import main
from bayesprune.errors import EmptyGroupWarning
from bayesprune.programs import available, load_model
from tests.programs.small import ANY_NETWORK

GROUPS = {
    "bmrs_lenet5": {"conv1": 6, "conv2": 16, "fc1": 120, "fc2": 84},
    "bmrs_mlp": {f"fc{number}": 50 for number in range(1, 7)},
    "committee": {"0": 12},
    "lenet5": {"conv1": 20, "conv2": 50, "flatten": 800, "fc1": 500},
    "lenet5_spike_slab": {"conv1": 20, "conv2": 50, "fc1": 500},
    "lenet_300_100": {"input": 784, "fc1": 300, "fc2": 100},
    "lenet_300_100_spike_slab": {"input": 784, "fc1": 300, "fc2": 100},
    "regression_mlp": {"input": 10, "0": 50},
}
SCORE = {"committee": "test_rmse", "regression_mlp": "test_rmse"}
SMALLEST = {
    "committee": 100 / 12 + 1e-9,
    "bmrs_mlp": 2,
}  # per cent that one unit a group is; else it is under 1
DEAR = 1e4  # nats a unit: more than all that the rows could ever pay


def test_every_model_is_tested():
    assert {program.name for program in available("models")} == {*GROUPS, *ANY_NETWORK}


@pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.nightly] * (n == "lenet5_spike_slab")) for n in GROUPS]
)
def test_one_epoch_from_the_command_line(name, digits, capsys):
    assert main(["run", name, "--epochs", "1", "--seed", "3", "--out", "out", "--quiet"]) == 0
    result = json.loads(Path("out/result.json").read_text())
    score = SCORE.get(name, "test_error_percent")
    assert {score, "test_nll", "parameters_kept_percent", "macs_kept_percent", "seconds"} <= set(result)
    assert dict(zip(result["groups"], result["dense_architecture"], strict=True)) == GROUPS[name]
    assert result["undecided_gates"] == 0 and result["epochs"] == 1
    kept = dict(zip(result["groups"], result["architecture"], strict=True))
    assert all(1 <= kept[group] <= size for group, size in GROUPS[name].items())
    assert Path("out/gates.png").read_bytes()[:4] == b"\x89PNG"
    network, test = bp.load("out"), load_model(name).data().test if name in SCORE else digits.test
    assert sum(p.numel() for p in network.parameters()) == result["parameters_kept"]
    likelihood = bp.Gaussian(rows=1, learn_scale=False) if name in SCORE else bp.Categorical(rows=1)
    assert bp.evaluate(network, (test.x, test.y), likelihood).score == pytest.approx(result[score], rel=1e-5)


@pytest.mark.parametrize("name", GROUPS)
def test_its_network_pruned_is_its_network_masked(name, digits):
    """At random gates, one in three closed; in float64 to 1e-10."""
    program = load_model(name)
    train = program.data().train if program.data else digits.train
    pyro.set_rng_seed(0)
    gated = program.model(train, digits.classes, None).double().eval()
    closed = torch.rand(len(gated.log_odds)) < 1 / 3
    gated.log_odds.data = torch.where(closed, -5.0, 5.0).double()
    x = train.x[:20].double()
    masked = gated.outputs(x, gated.by_group((~closed).double()))
    small = bp.prune(gated)
    torch.testing.assert_close(small(x), masked, rtol=1e-10, atol=1e-10)
    assert sum(p.numel() for p in small.parameters()) < gated.dense_parameters


@pytest.mark.parametrize("name", GROUPS)
def test_a_price_beyond_all_evidence_leaves_one_unit_a_group(name, small_run):
    with pytest.warns(EmptyGroupWarning, match="the prior wants all of its .* units gone"):
        gated, result, _ = small_run(name, DEAR)
    assert {g.name: g.size for g in gated.groups} == GROUPS[name]
    assert result.gated.kept() == dict.fromkeys(GROUPS[name], 1)
    assert result.undecided == 0 and result.history[-1].parameters_percent < SMALLEST.get(name, 1)


@pytest.mark.parametrize(
    ("name", "epochs", "worst"),
    [("lenet_300_100", 12, 35.0), ("lenet5", 24, 20.0), ("regression_mlp", 12, 0.7), ("committee", 24, 1.3)],
)
def test_at_a_low_price_it_learns_and_still_prunes(name, epochs, worst, small_run):
    """Guessing errs in 90 % of the digits; the targets' standard deviations are 0.76 and 2.0 (committee)."""
    gated, result, test = small_run(name, 0.1, epochs)
    assert bp.evaluate(result.gated, (test.x, test.y)).score < worst
    assert result.history[-1].nll < result.history[0].nll
    small, dense = bp.count(bp.prune(result), test.x[:1]), gated.dense_parameters
    assert small.parameters < dense
    assert result.history[-1].parameters_percent == pytest.approx(100 * small.parameters / dense)


def test_pixels_that_are_always_black_are_gone(small_run, digits):
    """They have no evidence in their favour, at any weights, so any price removes them."""
    _, result, _ = small_run("lenet_300_100", {"input": 1.0, "fc*": 0.1})
    black = (digits.train.x == 0).all(0).flatten()
    assert black.any()
    assert not result.gated.by_group(result.gated.alive)["input"][black].any()
