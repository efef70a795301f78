import json

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.cli.measure import history, measure, over_seeds
from bayesprune.data import Split

SEEDS = [
    {
        "seed": 0,
        "test_error_percent": 2.0,
        "architecture": [4, 7],
        "groups": ["a", "b"],
        "dense_parameters": 90,
    },
    {
        "seed": 1,
        "test_error_percent": 4.0,
        "architecture": [6, 7],
        "groups": ["a", "b"],
        "dense_parameters": 90,
    },
]


def test_one_seed_is_its_own_mean_without_a_spread() -> None:
    assert over_seeds(SEEDS[:1]) == {key: value for key, value in SEEDS[0].items() if key != "seed"}


def test_means_and_sample_deviations() -> None:
    means = over_seeds(SEEDS)
    assert means["test_error_percent"] == 3.0
    assert means["test_error_percent_std"] == pytest.approx(2**0.5)
    assert means["architecture"] == [5.0, 7]
    assert means["architecture_std"] == [pytest.approx(2**0.5), 0.0]
    assert means["groups"] == ["a", "b"]
    assert means["dense_parameters"] == 90
    assert "dense_parameters_std" not in means
    assert "seed" not in means


def test_a_seed_between_two_equal_ones_is_a_spread() -> None:
    means = over_seeds([SEEDS[0], SEEDS[1], SEEDS[0]])
    assert means["architecture"] == [pytest.approx(14 / 3), 7]
    assert means["architecture_std"] == [pytest.approx(2 / 3**0.5), 0.0]


def test_an_epoch_is_plain_values() -> None:
    record = bp.svi.record(
        fitted({})[0].gated, torch.full((9,), 0.5), epoch=1, elbo=float("nan"), nll=0.25, seconds=0.0
    )
    (plain,) = history([record])
    assert plain["elbo"] is None and plain["nll"] == 0.25 and plain["inclusion"] == [0.5] * 9
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def fitted(initial_inclusion: dict[str, float]) -> tuple[bp.FitResult, Split]:
    """What an inference leaves that does not decide: gates are as they began."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    gated = bp.gate(
        network,
        torch.zeros(1, 4),
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(1.0)),
        likelihood=bp.Categorical(rows=20),
        initial_inclusion=initial_inclusion,
    )
    rows = Split(torch.randn(20, 4), torch.randint(3, (20,)))
    return bp.FitResult(gated, (), 0.0, rounded=0, decided_at=None), rows


@pytest.mark.parametrize(
    ("inclusion", "kept"), [({"0": 0.27}, [4, 1]), ({"input": 0.27}, [1, 5]), ({"*": 0.27}, [1, 1])]
)
def test_an_undecided_posterior_is_pruned_as_prune_does(inclusion: dict[str, float], kept: list[int]) -> None:
    result, rows = fitted(inclusion)
    with pytest.warns(bp.errors.EmptyGroupWarning):
        network, figures = measure(result, rows)
    with pytest.warns(bp.errors.EmptyGroupWarning):
        expected = bp.prune(result)
    assert figures["architecture"] == kept
    assert str(network) == str(expected)
    assert torch.equal(network(rows.x), expected(rows.x))
    assert figures["parameters_kept"] == sum(p.numel() for p in expected.parameters())
    assert figures["macs_kept"] == bp.count(expected, rows.x[:1]).macs
    assert figures["test_nll"] == bp.evaluate(expected, (rows.x, rows.y), result.gated.likelihood).nll


UNDECIDED = '''"""An inference that leaves every gate of a hidden layer at 0.27, and decides nothing."""
import torch

import bayesprune as bp


def infer(gated, train, **settings):
    with torch.no_grad():
        gated.by_group(gated.log_odds)["1"].fill_(-1.0)
    record = bp.svi.record(gated, gated.inclusion_prob(), epoch=1, elbo=0.0, nll=0.0, seconds=0.0)
    return bp.FitResult(gated, (record,), 0.0, rounded=0, decided_at=None)
'''


@pytest.mark.filterwarnings("default::bayesprune.errors.EmptyGroupWarning")
def test_a_run_folder_never_holds_a_layer_without_units(cli, tmp_path) -> None:
    (tmp_path / "undecided.py").write_text(UNDECIDED)
    ran = cli("run", "./mine.py", "--inference", "./undecided.py", "--out", "run", "--quiet")
    assert ran.code == 0, ran.err
    assert "Kept the 1 most probable" in ran.err
    architecture = json.loads((tmp_path / "run" / "result.json").read_text())["architecture"]
    network = bp.load("run")
    assert architecture == [784, 1]
    assert [p.shape for p in network.parameters()] == [(1, 784), (1,), (10, 1), (10,)]
