import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bayesprune.data import load as load_data
from bayesprune.export import load

KEYS = {
    "test_error_percent",
    "dense_parameters",
    "parameters_kept_percent",
    "macs_kept_percent",
    "architecture",
    "undecided_gates",
    "seconds",
}


def _result(folder: Path | str) -> dict[str, Any]:
    result = json.loads((Path(folder) / "result.json").read_text())
    assert isinstance(result, dict)
    return result


def test_a_run_leaves_everything_behind(cli: Any) -> None:
    done = cli("run", "./mine.py")
    assert done.code == 0
    folder = Path("runs/mine-digits")
    files = "run.json result.json history.json pruned.safetensors architecture.json gates.png posterior.nc"
    files += " evidence.json report.html training_rows.safetensors files.json"
    assert {path.name for path in folder.iterdir()} == {*files.split(), "checkpoints"}
    result = _result(folder)
    assert set(result) >= KEYS
    assert (result["program"], result["data"], result["epochs"]) == ("mine", "digits", 3)
    assert len(result["seeds"]) == 1
    assert result["seeds"][0].keys() >= KEYS
    history = json.loads((folder / "history.json").read_text())["epochs"]
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    assert len(history[-1]["inclusion"]) == 800


def test_the_figures_are_those_of_the_saved_network(cli: Any) -> None:
    cli("run", "./mine.py", "--quiet")
    result, network = _result("runs/mine-digits"), load("runs/mine-digits")
    test = load_data("digits").test
    error = 100 * float((network(test.x).argmax(1) != test.y).float().mean())
    assert result["test_error_percent"] == pytest.approx(error)
    assert result["parameters_kept"] == sum(parameter.numel() for parameter in network.parameters())
    assert result["parameters_kept_percent"] == pytest.approx(100 * result["parameters_kept"] / 12_730)
    inputs, hidden = result["architecture"]
    assert 0 < hidden < 16
    assert 0 < inputs < 784
    assert result["parameters_kept"] == inputs * hidden + hidden + 10 * hidden + 10
    assert result["undecided_gates"] == 0


def test_the_summary_says_what_came_out_and_what_to_do_next(cli: Any) -> None:
    done = cli("run", "./mine.py", "--epochs", "1")
    result = _result("runs/mine-digits")
    assert f"Test error    {result['test_error_percent']:.2f} %" in done.out
    assert f"{result['parameters_kept_percent']:.2f} % kept" in done.out
    for part in (
        "mine on digits, 1 epoch\n",
        "MACs",
        "Units kept",
        "all decided",
        "runs/mine-digits",
        "bayesprune export",
    ):
        assert part in done.out
    assert "bayesprune copy" not in done.out
    assert "ELBO" in done.err
    assert "ELBO" not in done.out


def test_quiet_prints_nothing(cli: Any) -> None:
    done = cli("run", "./mine.py", "--epochs", "1", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_the_next_run_gets_the_next_folder(cli: Any) -> None:
    for _ in range(2):
        assert cli("run", "./mine.py", "--epochs", "1", "--quiet").code == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["mine-digits", "mine-digits-2"]
    first, second = _result("runs/mine-digits"), _result("runs/mine-digits-2")
    assert first["test_nll"] == second["test_nll"]


def test_seeds_are_run_one_by_one_and_averaged(cli: Any) -> None:
    done = cli("run", "./mine.py", "--seeds", "3", "--seed", "5", "--epochs", "2", "--out", "out")
    assert done.code == 0
    assert "mean ± standard deviation over 3 seeds" in done.out
    assert "Seed 6 (2 of 3)" in done.err
    result = _result("out")
    errors = [seed["test_error_percent"] for seed in result["seeds"]]
    assert [seed["seed"] for seed in result["seeds"]] == [5, 6, 7]
    assert result["test_error_percent"] == pytest.approx(sum(errors) / 3)
    assert result["test_error_percent_std"] == pytest.approx(float(torch.tensor(errors).std()), abs=1e-5)
    assert len(set(errors)) > 1
    for seed in (5, 6, 7):
        folder = Path("out") / f"seed-{seed}"
        assert (folder / "pruned.safetensors").is_file()
        assert _result(folder) == result["seeds"][seed - 5]
    cli("run", "./mine.py", "--seed", "6", "--epochs", "2", "--out", "alone", "--quiet")
    assert _result("alone")["test_nll"] == result["seeds"][1]["test_nll"]


def test_the_price_reaches_the_program(cli: Any) -> None:
    cli("run", "./mine.py", "--price", "4", "--out", "cheap", "--quiet")
    cli("run", "./mine.py", "--price", "in*=8,1=4", "--out", "dear-inputs", "--quiet")
    cheap, dear = _result("cheap"), _result("dear-inputs")
    assert (cheap["price"], dear["price"]) == (4.0, {"in*": 8.0, "1": 4.0})
    assert dear["architecture"][0] < cheap["architecture"][0]


def test_a_program_may_bring_its_own_data(cli: Any, tmp_path: Path) -> None:
    own = "\nfrom bayesprune.data import Dataset, Split, digits\n\ndef data():\n    d = digits()\n"
    own += "    return Dataset('fewer', Split(d.train.x[:200], d.train.y[:200]), d.test, 10)\n"
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text() + own)
    assert cli("run", "./mine.py", "--epochs", "1", "--quiet").code == 0
    assert _result("runs/mine-fewer")["data"] == "fewer"
    assert cli("run", "./mine.py", "--epochs", "1", "--quiet", "--data", "digits").code == 0
    assert _result("runs/mine-digits")["data"] == "digits"


def test_the_programs_epochs_for_this_data_are_the_default(cli: Any, tmp_path: Path) -> None:
    text = (tmp_path / "mine.py").read_text().replace("EPOCHS = 3", 'EPOCHS = {"digits": 2, "*": 9}')
    (tmp_path / "mine.py").write_text(text)
    cli("run", "./mine.py", "--quiet")
    assert _result("runs/mine-digits")["epochs"] == 2


def test_threads_and_device_are_used(cli: Any) -> None:
    before = torch.get_num_threads()
    cli("run", "./mine.py", "--epochs", "1", "--threads", "2", "--device", "cpu", "--quiet")
    assert torch.get_num_threads() == before
    assert _result("runs/mine-digits")["threads"] == 2
    assert json.loads(Path("runs/mine-digits/run.json").read_text())["settings"]["threads"] == 2
    assert _result("runs/mine-digits")["device"] == "cpu"


def test_a_small_network_takes_one_thread_unless_asked(cli: Any) -> None:
    torch.set_num_threads(2)
    cli("run", "./mine.py", "--epochs", "1", "--quiet")
    assert _result("runs/mine-digits")["threads"] == 1
    page = Path("runs/mine-digits/report.html").read_text()
    assert "--threads 1" in page, "the command that makes it again names them"
    for command in ("certify", "diagnose", "export"):
        cli(command, "runs/mine-digits")
        assert torch.get_num_threads() == 2, command


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_cuda(cli: Any) -> None:
    assert cli("run", "./mine.py", "--device", "cuda").code == 0
    assert _result("runs/mine-digits")["device"] == "cuda"


def test_lenet5_on_digits(cli: Any) -> None:
    done = cli("run", "lenet5", "--data", "digits", "--epochs", "2")
    assert done.code == 0
    result = _result("runs/lenet5-digits")
    assert result["dense_parameters"] == 431_080
    assert result["dense_macs"] == 2_293_000
    assert result["groups"] == ["conv1", "conv2", "flatten", "fc1"]
    assert result["dense_architecture"] == [20, 50, 800, 500]
    assert result["test_error_percent"] < 60
    assert "bayesprune copy lenet5 mine.py" in done.out
