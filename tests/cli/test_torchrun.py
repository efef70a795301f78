"""The command under torchrun: all processes learn one network, and one of them writes and speaks."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bayesprune.cli import main
from bayesprune.cli import processes as module
from bayesprune.errors import SettingsError
from bayesprune.programs import load_inference
from bayesprune.programs.load import INFER_ARGUMENTS

REPOSITORY = Path(__file__).parents[2]
TOLD = '''"""SVI by plain gradients under noise that is told: one for all divisions of a batch."""
import os

import torch

import bayesprune as bp
from bayesprune.svi.estimators.problem import Estimate, gradient_of

RANK, COUNT = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Told(bp.Callback):
    def on_start(self, training):
        def told(problem, want_gates=True):
            generator = torch.Generator().manual_seed(1000 * training.seed + training.steps)
            noise = torch.rand(64, len(training.gated.alive), generator=generator)
            noise = noise.tensor_split(COUNT)[RANK][:, training.gated.alive]
            z = (noise < problem.probs).to(problem.probs.dtype).requires_grad_()
            loss = problem.nll(problem.split(z)).mean()
            return Estimate(loss, lambda factor: gradient_of(z, factor).sum(0))

        training.engine.estimator = told

    def on_epoch(self, training, epoch):
        if os.environ.get("FAILS") == f"{RANK}/{epoch.epoch}":
            raise ValueError(f"process {RANK} has had enough")


def infer(gated, train, **settings):
    sgd = lambda params: torch.optim.SGD(params, lr=0.1)
    return bp.fit(gated, (train.x, train.y), optimizer=sgd, callbacks=[Told()], **settings)
'''


@pytest.fixture(autouse=True)
def told(cli: Any) -> None:
    """told.py in the working folder, beside mine.py."""
    Path("told.py").write_text(TOLD)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **more}


def torchrun(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`torchrun -m bayesprune WORDS...`, of two processes."""
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*started, "-m", "bayesprune", *words], env=environment(**more), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def both(*words: str, **more: str) -> list[tuple[int, str, str]]:
    """The command in two processes that meet as those of torchrun do; exit code, stdout, stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "bayesprune", *words], env=environment(**place, RANK=str(rank), **more),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    found = []
    for process in started:
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
        found.append((process.returncode, out, err))
    return found


def shape(value: Any) -> Any:
    """Names and types of what JSON holds."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    return [shape(entry) for entry in value[:1]] if isinstance(value, list) else type(value).__name__


def files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.name != ".lock")


def compared(cli: Any, *words: str) -> tuple[str, str]:
    """The command in one process and in two, given the same noise: one network; what the two said."""
    words = ("run", "./mine.py", "--inference", "./told.py", "--price", "input=2,1=8", *words)
    alone = cli(*words, "--out", "one")
    done = torchrun(*words, "--out", "two")
    assert (alone.code, done.returncode) == (0, 0), done.stderr
    assert files("one") == files("two") and "result.json" in files("two")
    one, two = (json.loads(Path(folder, "result.json").read_text()) for folder in ("one", "two"))
    assert shape(one) == shape(two)
    for first, second in zip(one["seeds"], two["seeds"], strict=True):
        assert first["architecture"] == second["architecture"]
        assert first["parameters_kept_percent"] < 60
    for network in Path("one").rglob("*.safetensors"):
        if network.name == "pruned.safetensors":
            other = load_file(Path("two", network.relative_to("one")))
            for name, value in load_file(network).items():
                torch.testing.assert_close(other[name], value, atol=1e-4, rtol=1e-4, msg=name)
    return done.stdout, done.stderr


def test_two_processes_keep_the_units_of_one(cli: Any) -> None:
    out, err = compared(cli, "--baseline")
    assert out.count("mine on digits, 3 epochs") == out.count("Next") == 1
    assert err.count("Baseline: the dense network\n") == err.count("fit 100 %") == 1
    assert json.loads(Path("two/baseline.json").read_text())["processor_seconds"] > 0
    assert "epochs" in cli("report", "two").out + Path("two/report.html").read_text()
    assert cli("diagnose", "two").code in (0, 1)


@pytest.mark.nightly
def test_seeds_follow_each_other_in_all_processes(cli: Any) -> None:
    out, err = compared(cli, "--seeds", "2")
    assert "over 2 seeds" in out and err.count("Seed 1 (2 of 2)") == 1
    Path("two/result.json").unlink()
    Path("two/seed-1/result.json").unlink()
    done = torchrun("run", "./mine.py", "--inference", "./told.py", "--resume", "--out", "two")
    assert done.returncode == 0 and "Seed 0 (1 of 2): finished before" in done.stderr
    assert "Seed 1 (2 of 2)\n" in done.stderr and Path("two/result.json").exists()


def test_a_process_that_fails_ends_all_with_one_message_and_any_number_goes_on(cli: Any) -> None:
    words = ["run", "./mine.py", "--inference", "./told.py"]
    (code, out, err), (other, _, told) = both(*words, "--out", "two", FAILS="1/2")
    assert (code, other, out) == (2, 2, "")
    assert "told.py, line 26: infer() failed: ValueError: process 1 has had enough" in told
    assert "Error" not in err and "Traceback" not in err + told
    assert "epoch-0001.safetensors" in " ".join(files("two")) and not Path("two/result.json").exists()
    assert cli(*words, "--out", "one").code == 0
    assert cli(*words, "--resume", "--out", "two").code == 0
    one, two = (json.loads(Path(folder, "result.json").read_text()) for folder in ("one", "two"))
    assert one["architecture"] == two["architecture"] and files("one") == files("two")


@pytest.mark.nightly
def test_one_process_goes_on_in_two(cli: Any) -> None:
    words = ["run", "./mine.py", "--inference", "./told.py"]
    cli(*words, "--out", "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAILS", "0/2")
        assert cli(*words, "--out", "two").code == 2
    for code, out, err in both(*words, "--resume", "--out", "two"):
        assert code == 0, out + err
    one, two = (json.loads(Path(folder, "result.json").read_text()) for folder in ("one", "two"))
    assert one["architecture"] == two["architecture"]


def test_what_the_first_process_refuses_ends_the_others_without_a_word() -> None:
    Path("taken").mkdir()
    Path("taken/notes").write_text("mine")
    (code, out, err), (other, _, silent) = both("run", "./mine.py", "--out", "taken")
    assert (code, other, out, silent) == (2, 2, "", "")
    assert err.startswith("Error: taken: is not empty") and err.count("\n") == 1
    assert files("taken") == ["notes"]


@pytest.mark.nightly
def test_a_limit_that_is_measured_is_refused_once_and_nothing_is_left() -> None:
    done = both("run", "./mine.py", "--budget", "latency_ms=1,batch=8", "--out", "two")
    assert [code for code, _, _ in done] == [2, 2]
    assert sum("2 processes would each measure" in err for _, _, err in done) == 1
    assert sum(err.count("Error: ") for _, _, err in done) == 1 and not Path("two").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"WORLD_SIZE": "2"},
            "WORLD_SIZE=2 .* RANK, MASTER_ADDR, MASTER_PORT is not there.* unset WORLD_SIZE",
        ),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "x"}, "MASTER_PORT is not there"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two' in the environment is no whole number"),
    ],
)
def test_an_environment_that_is_not_torchruns_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message), module.together():
        pass


@pytest.mark.parametrize(("rank", "told"), [("0", True), ("1", False)])
def test_wrong_words_are_told_by_the_first_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, told: bool
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert main(["run", "lenet5", "--epochs", "0"]) == 2
    assert ("'--epochs'" in capsys.readouterr().err) == told


def test_every_process_takes_a_cuda_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    module.check_devices()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="2 processes on this machine, and 1 CUDA device: each"):
        module.check_devices()


@pytest.mark.parametrize("name", ["nuts_reference", "svi_structured"])
def test_inferences_of_one_process_say_so(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(SettingsError, match=f"{name} .* in one process: give the command without torchrun"):
        load_inference(name).infer(None, None, **dict.fromkeys(INFER_ARGUMENTS))
