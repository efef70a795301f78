import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from bayesprune.export import load


@pytest.fixture
def run(cli: Any) -> Path:
    assert cli("run", "./mine.py", "--epochs", "1", "--out", "one", "--quiet").code == 0
    return Path("one")


def test_export_to_a_folder(cli: Any, run: Path) -> None:
    done = cli("export", "one", "deployed")
    assert done.code == 0
    assert 'bayesprune.load("deployed")' in done.out
    x = torch.rand(3, 1, 28, 28)
    assert torch.equal(load("deployed")(x), load(run)(x))


def test_export_to_onnx(cli: Any, run: Path) -> None:
    done = cli("export", "one", "net.onnx")
    if importlib.util.find_spec("onnxscript") and importlib.util.find_spec("onnx"):
        assert done.code == 0
        assert Path("net.onnx").stat().st_size > 1000
    else:
        assert done.code == 2
        assert "pip install onnx onnxscript onnxruntime" in done.err
        assert not Path("net.onnx").exists()


def test_several_seeds_are_listed_to_choose_from(cli: Any) -> None:
    cli("run", "./mine.py", "--epochs", "1", "--seeds", "2", "--out", "two", "--quiet")
    done = cli("export", "two", "deployed")
    assert done.code == 2
    for seed in (0, 1):
        assert f"two/seed-{seed}  (" in done.err
    assert cli("export", "two/seed-1", "deployed").code == 0


def test_what_cannot_be_exported(cli: Any, run: Path, files: Any) -> None:
    Path("empty").mkdir()
    Path("begun").mkdir()
    Path("begun/run.json").write_text("{}")
    before = files(Path())
    for words, message in (
        (("none", "x"), "there is no such folder"),
        (("empty", "x"), "is not the folder of a run"),
        (("begun", "x"), "has not finished"),
        (("one", "one"), "exists already"),
        (("one",), "Missing argument 'OUT'"),
    ):
        done = cli("export", *words)
        assert (done.code, message in done.err) == (2, True)
    assert files(Path()) == before


def test_a_truncated_network_is_named(cli: Any, run: Path) -> None:
    path = run / "pruned.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    done = cli("export", "one", "x")
    assert done.code == 2
    assert "one/pruned.safetensors" in done.err
    assert not Path("x").exists()
