"""The command line in a fresh working folder, and programs small enough to run in a blink."""

import functools
import io
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from bayesprune.cli import main

MODEL = '''"""A small network of my own."""
from torch import nn

import bayesprune as bp

EPOCHS = 3
BATCH_SIZE = 64
PRICES = {"input": 4.0, "1": 15.0}
RECIPE = bp.Recipe(
    learning_rate=2e-3,
    compact_learning_rate=2e-3,
    shrink=bp.Shrink(every=5),
    gates=bp.GateSteps(learning_rate=0.1, momentum=0.95, clip=0.5, every=1),
    warmup=0.05,
    ramp=0.1,
    decide=0.8,
)


def model(train, classes, price):
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, classes))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(PRICES if price is None else price))
    return bp.gate(network, train.x[:1], prior=prior, likelihood=bp.Categorical(rows=len(train.y)))
'''

INFERENCE = '''"""SVI, which stops after $STOP_AFTER epochs in the way that $STOP_BY says."""
import os
import signal

import bayesprune as bp


def infer(gated, train, *, seed, **settings):
    def stop(epoch):
        after, on_seed = int(os.environ.get("STOP_AFTER", 0)), int(os.environ.get("STOP_SEED", 0))
        if (epoch.epoch, seed) == (after, on_seed):
            os.kill(os.getpid(), getattr(signal, os.environ["STOP_BY"]))

    return bp.fit(gated, (train.x, train.y), seed=seed, on_epoch=stop, **settings)
'''


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@functools.cache
def _blank_pictures() -> dict[str, bytes]:
    pictures = {kind: io.BytesIO() for kind in ("png", "svg")}
    for kind, picture in pictures.items():
        Figure().savefig(picture, format=kind)
    return {kind: picture.getvalue() for kind, picture in pictures.items()}


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is two thirds of what a small run costs: pictures are empty here. tests/report draws them."""

    blank = _blank_pictures()

    def draw(self: FigureCanvasBase, file: IO[Any], *_: Any, format: str = "png", **__: Any) -> None:
        picture = blank[format]
        file.write(picture.decode() if isinstance(file, io.TextIOBase) else picture)

    monkeypatch.setattr(FigureCanvasBase, "print_figure", draw)


@pytest.fixture
def cli(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    blank_pictures: None,
) -> Iterator[Cli]:
    """Runs `bayesprune WORDS...` in an empty working folder that holds mine.py and stopping.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "mine.py").write_text(MODEL)
    (tmp_path / "stopping.py").write_text(INFERENCE)
    threads = torch.get_num_threads()
    on_interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it

    def run(*words: str) -> Outcome:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(code, captured.out, captured.err)

    yield run
    signal.signal(signal.SIGINT, on_interrupt)
    torch.set_num_threads(threads)


@pytest.fixture
def files() -> Callable[[Path], dict[str, bytes]]:
    """Content of every file below a folder, to see that nothing was touched."""
    return lambda folder: {
        str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
