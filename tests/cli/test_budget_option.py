"""`bayesprune run --budget`: it reaches the fit, is recorded and resumed, and bad values get one message."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import bayesprune as bp


def _json(path: str) -> dict[str, Any]:
    content = json.loads(Path(path).read_text())
    assert isinstance(content, dict)
    return content


def test_the_budget_is_met_and_recorded(cli: Any) -> None:
    done = cli("run", "./mine.py", "--budget", "params=0.2", "--out", "out")
    assert done.code == 0
    result, run = _json("out/result.json"), _json("out/run.json")
    assert result["budget"] == run["settings"]["budget"] == {"params": 0.2}
    assert result["price"] is None
    assert 19.6 <= result["parameters_kept_percent"] <= 20.0
    assert result["undecided_gates"] == 0


def test_sizes_are_held_and_recorded(cli: Any) -> None:
    done = cli("run", "./mine.py", "--budget", "params=0.5,uniform,multiple_of=4", "--out", "out")
    assert done.code == 0
    result, run = _json("out/result.json"), _json("out/run.json")
    asked = {"params": 0.5, "uniform": 1, "multiple_of": 4}
    assert result["budget"] == run["settings"]["budget"] == asked
    sizes = list(zip(result["architecture"], result["dense_architecture"], strict=True))
    assert any(kept < dense for kept, dense in sizes)
    assert all(kept % 4 == 0 or kept == dense for kept, dense in sizes)


def test_megabytes_are_met_and_recorded(cli: Any) -> None:
    done = cli("run", "./mine.py", "--budget", "memory_mb=0.05,batch=8", "--out", "out")
    assert done.code == 0
    result, run = _json("out/result.json"), _json("out/run.json")
    assert result["budget"] == run["settings"]["budget"] == {"memory_mb": 0.05, "batch": 8}
    small = bp.load("out")
    taken = bp.measure(small, torch.zeros(8, 1, 28, 28), timer=lambda network, x: 1.0)
    assert 0.95 * 0.05 <= taken.megabytes <= 0.05


def test_milliseconds_are_met_and_recorded(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_weights(network: Any, x: Any) -> float:
        return 0.001 + 1e-6 * sum(parameter.numel() for parameter in network.parameters())

    monkeypatch.setattr("bayesprune.priors.measured.short_milliseconds", by_weights)
    done = cli("run", "./mine.py", "--budget", "latency_ms=0.006,batch=8", "--out", "out")
    assert done.code == 0
    assert _json("out/result.json")["budget"] == {"latency_ms": 0.006, "batch": 8}
    assert 0.95 * 0.006 <= by_weights(bp.load("out"), None) <= 0.006


def test_milliseconds_that_no_network_takes_are_one_message(
    cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bayesprune.priors.measured.short_milliseconds", lambda network, x: 0.5)
    done = cli("run", "./mine.py", "--budget", "latency_ms=0.2,batch=8", "--out", "out", "--quiet")
    assert done.code == 2
    assert "latency_ms=0.2 cannot be met: the smallest network" in " ".join(done.err.split())


def test_without_a_budget_none_is_recorded(cli: Any) -> None:
    cli("run", "./mine.py", "--epochs", "1", "--out", "out", "--quiet")
    assert _json("out/result.json")["budget"] is None


def test_a_run_with_a_budget_is_resumed_with_it(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOP_AFTER", "2")
    monkeypatch.setenv("STOP_BY", "SIGINT")
    words = ("run", "./mine.py", "--inference", "./stopping.py", "--budget", "macs=0.3", "--quiet")
    assert cli(*words, "--out", "out").code == 130
    monkeypatch.delenv("STOP_AFTER")
    other = cli(*words[:-3], "--budget", "macs=0.4", "--resume", "--out", "out")
    assert other.code == 2
    assert "budget: the run has macs=0.3, this command macs=0.4" in other.err
    assert cli(*words, "--resume", "--out", "out").code == 0
    assert cli(*words, "--out", "whole").code == 0
    resumed, whole = _json("out/result.json"), _json("whole/result.json")
    assert resumed["test_nll"] == whole["test_nll"] and resumed["architecture"] == whole["architecture"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--budget", "0.1"),
            "'0.1' in '0.1' is not macs=SHARE, params=SHARE, latency_ms=NUMBER, memory_mb=NUMBER, batch=ROWS",
        ),
        (("--budget", "flops=0.1"), "'flops=0.1' in 'flops=0.1' is not macs=SHARE"),
        (("--budget", "macs=0.1,"), "is not macs=SHARE"),
        (("--budget", "macs=few"), "'few' in 'macs=few' is no number"),
        (("--budget", "macs=0"), "macs=0.0"),
        (("--budget", "macs=-1"), "macs=-1.0"),
        (("--budget", "macs=10"), "above 0 and at most 1"),
        (("--budget", "params=nan"), "params=nan"),
        (("--budget", "macs=0.1,macs=0.2"), "'macs' is there twice"),
        (("--budget", "macs"), "'macs' in 'macs' is not macs=SHARE"),
        (("--budget", "uniform"), "and got none"),
        (("--budget", "macs=0.5,uniform=2"), "uniform=2 in 'macs=0.5,uniform=2' is neither 1 nor 0"),
        (("--budget", "macs=0.5,multiple_of=2.5"), "'2.5' in 'macs=0.5,multiple_of=2.5' is no whole number"),
        (("--budget", "macs=0.5,multiple_of=0"), "multiple_of=0 must be a whole number, at least 1"),
        (("--budget", "macs=0.1", "--price", "3"), "--price and --budget exclude each other"),
        (("--budget", "params=0.0001"), "params=0.0001 (at least"),
        (("--budget", "latency_ms=2"), "latency_ms is for a pass over a batch"),
        (("--budget", "macs=0.5,batch=8"), "batch=8 says for how many rows"),
        (("--budget", "latency_ms=2,batch=2.5"), "'2.5' in 'latency_ms=2,batch=2.5' is no whole number"),
        (("--budget", "latency_ms=2,batch=0"), "batch=0 must be a whole number of rows"),
        (("--budget", "latency_ms=0,batch=8"), "latency_ms=0.0: milliseconds and megabytes must be positive"),
        (("--budget", "memory_mb=-2,batch=8"), "memory_mb=-2.0"),
        (("--budget", "memory_mb=0.001,batch=8"), "memory_mb=0.001 cannot be met: the smallest network"),
    ],
)
def test_wrong_budgets(cli: Any, files: Any, words: tuple[str, ...], message: str) -> None:
    before = files(Path())
    done = cli("run", "./mine.py", *words)
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert done.out == ""
    assert files(Path()) == before
