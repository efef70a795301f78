"""A disk that is full, for real: a limit on the size of files, which each writer meets in its own process."""

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.certify import TrainingRows
from bayesprune.files import write_json
from bayesprune.posterior import write
from bayesprune.posterior.plots import save_figure

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits are of POSIX systems")
MOST = 100
"""Bytes that a file can have; the system cuts what is longer, and says so."""


def limited(act: Callable[[], Any], most: int = MOST) -> str:
    """What an action in a process whose files can have so many bytes ends with: its error, or its value."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            told = repr(act())
        except OSError as problem:
            told = f"{type(problem).__name__} {problem.strerror}: {problem.filename}"
        except BaseException:
            told = traceback.format_exc()
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, text
    return text


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)).eval()


@pytest.fixture(scope="module")
def result() -> Any:
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    gated = bp.gate(
        network(), x[:1], prior=bp.priors.BernoulliGates(bp.priors.Flattening(2.0)),
        likelihood=bp.Categorical(rows=60),
    )  # fmt: skip
    return bp.fit(gated, (x, (x[:, 0] > 0).long()), epochs=2, batch_size=20, progress=False)


def figure(path: Path) -> None:
    from matplotlib.figure import Figure

    save_figure(Figure().add_subplot(), path)


def trained(folder: Path) -> None:
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    gated = bp.gate(
        network(), x[:1], prior=bp.priors.BernoulliGates(bp.priors.Flattening(2.0)),
        likelihood=bp.Categorical(rows=60),
    )  # fmt: skip
    y = (x[:, 0] > 0).long()
    bp.fit(gated, (x, y), epochs=2, batch_size=20, progress=False, checkpoint=folder, resume=True)


WRITERS: dict[str, Callable[[Path, Any], Any]] = {
    "a.json": lambda path, _: write_json(path, list(range(200))),
    "a.png": lambda path, _: figure(path),
    "posterior.nc": lambda path, result: write(result.posterior().to_arviz(5, prior=5), path, overwrite=True),
    "rows.safetensors": lambda path, _: TrainingRows.of(torch.randn(50, 3)).write(path),
    "pruned.safetensors": lambda path, _: bp.save(network(), path.parent, torch.zeros(1, 6)),
    "epoch-0001.safetensors": lambda path, _: trained(path.parent),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_says_which_file_and_leaves_what_was_there(name: str, tmp_path: Path, result: Any) -> None:
    path = tmp_path / name
    if not name.startswith("epoch-"):  # a training's folder takes no strangers
        path.write_text("old")
    told = limited(lambda: WRITERS[name](path, result))
    assert told == f"OSError File too large: {path}"
    left = {found.name: found.read_text() for found in tmp_path.iterdir()}
    assert left == ({} if name.startswith("epoch-") else {name: "old"})
    path.unlink(missing_ok=True)
    WRITERS[name](path, result)
    assert path.stat().st_size > MOST


def test_onnx_too(tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    (tmp_path / "a.onnx").write_text("old")
    told = limited(lambda: bp.export(network(), tmp_path / "a.onnx"))
    assert told == f"OSError File too large: {tmp_path / 'a.onnx'}"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.onnx", "old")]


ADVICE = "File too large. Check that the place can be read and written, and has room."


def told(outcome: str, file: str) -> None:
    """One message, with the file and what to do; exit code 2."""
    assert outcome.startswith("Outcome(code=2, out='',"), outcome
    assert outcome.count("Error: ") == 1 and f"Error: {file}: {ADVICE}" in outcome, outcome


def test_a_run_and_what_is_made_of_it(cli: Any, files: Any) -> None:
    run = ("run", "./mine.py", "--epochs", "2", "--quiet", "--out")
    told(limited(lambda: cli(*run, "none")), "none/run.json")
    assert not Path("none").exists()
    told(limited(lambda: cli(*run, "none"), 2_000), "none/checkpoints/epoch-0001.safetensors")
    assert not Path("none").exists()
    assert cli(*run, "whole").code == 0
    sizes = {path.name: path.stat().st_size for path in Path("whole").rglob("*") if path.is_file()}
    most = max(size for name, size in sizes.items() if name not in ("posterior.nc", "report.html"))
    assert most < sizes["posterior.nc"], "the limit has to let all other files pass"
    told(limited(lambda: cli(*run, "out"), most), "out/posterior.nc")
    assert not list(Path("out").rglob("*.tmp")) and not Path("out/.lock").exists()
    assert not Path("out/result.json").exists() and Path("out/pruned.safetensors").exists()
    assert cli(*run, "out", "--resume").code == 0
    for name in ("pruned.safetensors", "architecture.json", "evidence.json"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()

    before = files(Path())
    told(limited(lambda: cli("report", "out", "--force"), 10_000), "out/report.html")
    bound = ("certify", "out", "--alpha", "0.99", "--quiet")
    told(limited(lambda: cli(*bound)), "out/certificate/pruned.safetensors")
    told(limited(lambda: cli("export", "out", "there")), "there/pruned.safetensors")
    told(limited(lambda: cli("copy", "lenet5", "more.py")), "more.py")
    assert files(Path()) == before
    assert cli(*bound).code == 0
