"""`bayesprune run --baseline`: what else could be had for the cost, in result, summary and page."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import bayesprune as bp
from bayesprune import baseline
from bayesprune.cli.baseline import limit_of, over_seeds
from bayesprune.programs import load_model

RIVALS = ("dense", "small_dense", "magnitude")
RUN = ("run", "./mine.py", "--epochs", "3", "--out")


def _result(folder: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(Path(folder, "result.json").read_text())
    return result


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if "seconds" not in k}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def test_a_run_is_compared_and_is_the_same_but_for_that(cli: Any) -> None:
    done = cli(*RUN, "with", "--baseline")
    assert done.code == 0, done.err
    assert cli(*RUN, "without").code == 0
    result, plain = _result("with"), _result("without")
    told = result.pop("baseline")
    assert result["seeds"][0].pop("baseline") == told
    assert _timeless(result) == _timeless(plain)
    assert "baseline" not in json.loads(Path("without/run.json").read_text())["settings"]

    assert (told["cost"], told["limit"]) == ("macs", plain["macs_kept"])
    assert (told["dense"]["macs"], told["dense"]["parameters"]) == (12_704, 12_730)
    assert 0.7 * told["limit"] < told["small_dense"]["macs"] <= told["limit"]
    assert told["magnitude"]["macs"] == told["small_dense"]["macs"], "the same widths"
    assert told["pruned"]["processor_seconds"] > 0 < told["dense"]["processor_seconds"]

    (folder, error) = Path("with"), told["dense"]["test_error_percent"]
    assert re.search(r"What the pruning cost\n +Test error +Parameters +MACs +Processor time", done.out)
    assert f"  dense        {error:.2f} %" in done.out
    page = html.unescape((folder / "report.html").read_text())
    assert f"The dense network's is {error:.2f} %, " in page and "was not trained for comparison" not in page
    assert "--baseline" in page and "True" not in page.split("Make it again")[2].split("</pre>")[0]
    assert "What the pruning cost" not in Path("without/report.html").read_text()


def test_the_dense_network_starts_from_the_weights_of_the_pruned_one(cli: Any) -> None:
    assert cli(*RUN, "out", "--baseline", "--seed", "4", "--calibration", "0").code == 0
    model, data = load_model("./mine.py"), bp.data.digits()
    torch.manual_seed(4)
    gated = model.model(data.train, 10, None)
    plan = baseline.Plan((data.train.x, data.train.y), 3, 64, 4, model.recipe)
    expected = baseline.dense(gated, plan).figures((data.test.x, data.test.y))
    assert _timeless(_result("out")["baseline"]["dense"]).items() >= _timeless(expected).items()


def test_what_was_learnt_for_comparison_is_not_learnt_again(
    cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli(*RUN, "whole", "--baseline").code == 0

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    def never(*_: Any) -> None:
        raise AssertionError("has been learnt before")

    with monkeypatch.context() as patch:
        patch.setattr(baseline, "magnitude", stop)
        stopped = cli(*RUN, "killed", "--baseline")
    assert stopped.code == 130 and not Path("killed/result.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(baseline, "dense", never)
        patch.setattr(baseline, "small_dense", never)
        assert cli("run", "./mine.py", "--resume", "--out", "killed").code == 0
    assert _timeless(_result("whole")) == _timeless(_result("killed"))
    assert "processor_seconds" in _result("killed")["baseline"]["pruned"]

    record = Path("whole/baseline.json")  # of a finished run: mended where it was changed
    record.write_text(record.read_text().replace('"limit"', '"most"'))
    before = _result("whole")
    assert cli("run", "./mine.py", "--resume", "--out", "whole").code == 0
    assert Path("whole/baseline.json.changed-1").is_file()
    assert _timeless(_result("whole")) == _timeless(before)


def test_a_network_that_cannot_be_cut_evenly_keeps_the_others(cli: Any) -> None:
    text = Path("mine.py").read_text()
    network = "nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, classes)"
    Path("mine.py").write_text(text.replace(network, "nn.Linear(784, classes)").replace(', "1": 15.0', ""))
    done = cli(*RUN, "out", "--baseline")
    assert done.code == 0, done.err
    told = _result("out")["baseline"]
    assert set(told["small_dense"]) == set(told["magnitude"]) == {"refused"}
    assert told["dense"]["parameters"] == 7850
    assert "a small dense network of the same cost is left out." in done.err
    assert f"  small dense: {told['small_dense']['refused']}" in done.out
    assert "Small dense: " in Path("out/report.html").read_text()


def test_an_inference_that_learns_no_network_has_none_to_compare_with(cli: Any) -> None:
    Path("draws.py").write_text(
        "from dataclasses import replace\n\nimport bayesprune as bp\n\n\n"
        "def infer(gated, train, **settings):\n"
        "    found = bp.fit(gated, (train.x, train.y), **settings)\n"
        "    epochs = tuple(replace(epoch, elbo=float('nan')) for epoch in found.history)\n"
        "    return replace(found, history=epochs)\n"
    )
    done = cli(*RUN, "out", "--baseline", "--inference", "./draws.py")
    assert done.code == 0, done.err
    assert set(_result("out")["baseline"]) == {"refused"}
    assert "not compared: draws learns no network by steps" in done.out
    assert "draws learns no network by steps" in Path("out/report.html").read_text()


def test_seeds_have_baselines_of_their_own(cli: Any) -> None:
    done = cli(*RUN, "out", "--baseline", "--seeds", "2")
    assert done.code == 0, done.err
    result = _result("out")
    first, second = (seed["baseline"]["dense"]["test_nll"] for seed in result["seeds"])
    assert first != second
    assert result["baseline"]["dense"]["test_nll"] == pytest.approx((first + second) / 2)
    assert result["baseline"]["dense"]["test_nll_std"] == pytest.approx(abs(first - second) / 2**0.5)
    (line,) = (line for line in done.out.splitlines() if line.startswith("  small dense"))
    assert line.count("±") == 5
    assert Path("out/seed-1/baseline.json").is_file()


def test_means_are_of_what_all_seeds_have() -> None:
    rival = {"parameters": 2, "seconds": 1.0}
    one = {"cost": "macs", "limit": 10, "pruned": {"seconds": 1.0, "processor_seconds": 2.0}}
    one |= dict.fromkeys(RIVALS, rival)
    other = {**one, "limit": 20, "pruned": {"seconds": 3.0}, "magnitude": {"refused": "no"}}
    found = over_seeds([{"baseline": one}, {"baseline": other}])["baseline"]
    assert found["limit"] == 15
    assert found["pruned"]["seconds"] == 2.0 and "processor_seconds" not in found["pruned"]
    assert found["magnitude"] == {"refused": "no"} and found["dense"]["parameters"] == 2
    assert over_seeds([{}, {}]) == {}


@pytest.mark.parametrize(
    ("budget", "what"),
    [(None, "macs"), ({"params": 0.1}, "parameters"), ({"params": 0.1, "macs": 0.2}, "macs")],
)
def test_the_cost_is_what_was_budgeted(budget: dict[str, float] | None, what: str) -> None:
    limit = limit_of(budget, {"macs_kept": 7, "parameters_kept": 9})
    assert (limit.what, limit.most) == (what, {"macs": 7, "parameters": 9}[what])


def test_a_baseline_that_was_changed_is_no_part_of_a_page(cli: Any) -> None:
    assert cli(*RUN, "out", "--baseline").code == 0
    result = _result("out")
    result["seeds"][0]["baseline"]["dense"]["test_error_percent"] = "low"
    Path("out/result.json").write_text(json.dumps(result))
    done = cli("report", "out", "--force")
    assert done.code == 2
    assert "seeds[0].baseline.dense.test_error_percent is 'low', not a number" in done.err
