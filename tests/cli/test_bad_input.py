"""Whatever a user gets wrong: one clear message, exit code 2, and nothing on disk is lost or half begun."""

import gzip
import struct
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from bayesprune.cli import main


def _idx_folder(folder: Path) -> Path:
    folder.mkdir()
    for part, rows in (("train", 30), ("t10k", 10)):
        images = struct.pack(">BBBBIII", 0, 0, 8, 3, rows, 28, 28) + bytes(rows * 784)
        labels = struct.pack(">BBBBI", 0, 0, 8, 1, rows) + bytes(row % 2 for row in range(rows))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Name a PROGRAM"),
        (("./mine.py", "--epochs", "0"), "'--epochs': 0 is not in the range 1<=x"),
        (("./mine.py", "--batch-size", "-1"), "'--batch-size'"),
        (("./mine.py", "--seeds", "0"), "'--seeds'"),
        (("./mine.py", "--seeds", "many"), "'--seeds'"),
        (("./mine.py", "--seed", "-1"), "'--seed'"),
        (("./mine.py", "--device", "tpu"), "'--device'"),
        (("./mine.py", "--prize", "3"), "--price"),
        (("./mine.py", "--price", "0"), "'0': a price is a positive number of nats"),
        (("./mine.py", "--price", "-3"), "'-3': a price is a positive number of nats"),
        (("./mine.py", "--price", "nan"), "a price is a positive number"),
        (("./mine.py", "--price", "inf"), "a price is a positive number"),
        (("./mine.py", "--price", "cheap"), "'cheap' is no number"),
        (("./mine.py", "--price", "input=3,7"), "'7' in 'input=3,7' is not GROUP=NATS"),
        (("./mine.py", "--price", "input=3,input=4"), "group 'input' has two prices"),
        (("./mine.py", "--price", "input=3,1=0"), "'1=0': a price is a positive number"),
        (("./mine.py", "--price", "conv9=3"), "'input'"),
        (("./mine.py", "--data", "mnits"), "Did you mean 'mnist'"),
        (("./mine.py", "--data", "./none"), "there is no such folder"),
        (("./mine.py", "--data", "."), "no file with the train images"),
        (("./mine.py", "--data-dir", "."), "says where MNIST lies"),
        (("./mine.py", "--data", "mnist", "--data-dir", "none"), "there is no such folder"),
        (("lenet",), "Did you mean lenet"),
        (("mine",), "write ./mine.py"),
        (("./none.py",), "there is no such file"),
        (("./mine.py", "--inference", "svi_shrnk"), "Did you mean svi_shrink"),
        (("./mine.py", "--inference", "./mine.py"), "has no function infer()"),
        (("./stopping.py",), "has no function model()"),
        (("./mine.py", "--out", "mine.py"), "is a file, not a folder"),
        (("./mine.py", "--out", "."), "is not empty"),
        (("./mine.py", "--out", "mine.py/out"), "mine.py"),
    ],
)
def test_wrong_words(cli: Any, files: Any, words: tuple[str, ...], message: str) -> None:
    before = files(Path())
    done = cli("run", *words)
    assert done.code == 2
    assert message in done.err.replace("\n", " ")
    assert done.out == ""
    assert files(Path()) == before
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(cli: Any) -> None:
    done = cli("run", "./mine.py", "--device", "cuda")
    assert done.code == 2
    assert "finds no CUDA device. Use --device cpu" in done.err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return bp.gate(", "return network\n    bp.gate(", "model() returned Sequential, not a gated model"),
        ("nn.Linear(784, 16)", "nn.Linear(700, 16)", "(1, 1, 28, 28)"),
        ("rows=len(train.y)", "rows=10", "Build it with rows=1293"),
        ("rows=len(train.y)", "rows=0", "rows"),
        ("nn.Linear(16, classes)", "nn.Linear(16, 3)", "Categorical"),
        (
            "nn.ReLU()",
            "type('Deciding', (nn.Module,), {'forward': lambda self, x: x if x.sum() > 0 else -x})()",
            "Cannot trace",
        ),
        ("EPOCHS = 3", "EPOCHS = 'three'", "EPOCHS = 'three' is not a whole number"),
        ("warmup=0.05", "warmup=2.0", "warmup=2.0"),
        (
            "import bayesprune as bp",
            "import bayesprune as bp\nimport no_such_package",
            "line 5: the file does not run",
        ),
        ("return bp", "return network.no_such_thing\n    bp", "line 23: model() failed: AttributeError"),
    ],
)
def test_programs_that_do_not_do(cli: Any, files: Any, old: str, new: str, message: str) -> None:
    source = Path("mine.py")
    assert old in source.read_text()
    source.write_text(source.read_text().replace(old, new))
    before = files(Path())
    done = cli("run", "./mine.py", "--out", "out", "--quiet")
    assert done.code == 2
    assert message in done.err
    assert files(Path()) == before
    assert not Path("out").exists(), "the same --out must be free once the mistake is mended"


def test_a_network_with_nothing_to_gate(cli: Any) -> None:
    text = Path("mine.py").read_text().replace("likelihood=", 'exclude=("*",), likelihood=')
    Path("mine.py").write_text(text)
    done = cli("run", "./mine.py")
    assert done.code == 2
    assert "exclude" in done.err


def test_an_inference_that_returns_something_else(cli: Any) -> None:
    Path("empty.py").write_text("def infer(gated, train, **settings):\n    return gated\n")
    done = cli("run", "./mine.py", "--inference", "./empty.py")
    assert done.code == 2
    assert "infer() returned GatedModel, not a FitResult" in done.err


def test_a_loss_that_becomes_nan(cli: Any) -> None:
    text = Path("mine.py").read_text().replace("bp.Recipe(", "bp.Recipe(learning_rate=1e30, ")
    Path("mine.py").write_text(text)
    done = cli("run", "./mine.py", "--out", "out")
    assert done.code == 2
    assert "learning_rate" in done.err


def test_debug_shows_the_traceback(cli: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("def model(train, classes, price):\n    return 1 / 0\n")
    assert "--debug" in cli("run", "./mine.py").err
    assert main(["--debug", "run", "./mine.py"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err and "ZeroDivisionError: division by zero" in err


def test_another_run_in_the_folder_is_left_alone(cli: Any, files: Any) -> None:
    cli("run", "./mine.py", "--epochs", "1", "--out", "out", "--quiet")
    before = files(Path())
    done = cli("run", "./mine.py", "--epochs", "1", "--out", "out")
    assert done.code == 2
    assert "out: holds another run" in done.err
    assert "--resume" in done.err
    assert files(Path()) == before


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train-images-idx3-ubyte.gz", lambda content: content[:-9], "truncated or corrupt"),
        ("t10k-labels-idx1-ubyte.gz", lambda content: b"", "the file is empty"),
        ("train-labels-idx1-ubyte.gz", lambda content: b"<html>", "not an IDX file"),
        ("train-labels-idx1-ubyte.gz", lambda content: gzip.decompress(content)[:-1], "truncated"),
    ],
)
def test_corrupt_data_files(cli: Any, name: str, damage: Any, message: str) -> None:
    path = _idx_folder(Path("set")) / name
    assert cli("run", "./mine.py", "--data", "set", "--epochs", "1", "--quiet").code == 0
    path.write_bytes(damage(path.read_bytes()))
    done = cli("run", "./mine.py", "--data", "set", "--epochs", "1")
    assert done.code == 2
    assert name in done.err
    assert message in done.err
    assert [folder.name for folder in Path("runs").iterdir()] == ["mine-set"]


def test_changed_data_cannot_be_resumed(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _idx_folder(Path("set"))
    cli("run", "./mine.py", "--data", "./set", "--epochs", "1", "--out", "out")
    path = folder / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1] + b"\0"))
    done = cli("run", "./mine.py", "--resume", "--out", "out")
    assert done.code == 2
    assert "the data changed after the run began" in done.err


def test_a_place_that_cannot_be_written(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "out/run.json")

    monkeypatch.setattr("bayesprune.files.os.fsync", full)
    done = cli("run", "./mine.py", "--out", "out")
    assert done.code == 2
    assert "out/run.json: No space left on device" in done.err


def test_out_of_memory(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.py").write_text(Path("mine.py").read_text().replace("return bp", "raise MemoryError\n    bp"))
    done = cli("run", "./mine.py")
    assert done.code == 2
    assert "smaller --batch-size" in done.err


def test_an_interruption_before_the_first_epoch(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    loop = import_module("bayesprune.svi.fit")._Loop  # the room has a function of that name
    monkeypatch.setattr(loop, "_epoch_", interrupt)
    done = cli("run", "./mine.py", "--out", "out")
    assert done.code == 130
    assert "nothing was kept" in done.err
    assert not Path("out").exists()


def test_a_price_for_a_group_that_there_is_not_is_refused(cli, tmp_path):
    words = (
        "run",
        "lenet_300_100",
        "--data",
        "digits",
        "--price",
        "inptu=2,*=20",
        "--out",
        str(tmp_path / "r"),
    )
    done = cli(*words)
    assert done.code == 2 and "names 'inptu'" in done.err and "Did you mean 'input'?" in done.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = dict.update", "model cannot be called as it is"),
        ("model = print\nEPOCHS = 3", "model"),
        ("class A(dict):\n    def __repr__(self): 1 / 0\nEPOCHS = {'a': A()}\nmodel = lambda a, b, c: 1",
         "EPOCHS = a A is not a whole number"),
        ("raise GeneratorExit", "the file does not run: GeneratorExit"),
        ("class A(BaseException):\n    def __str__(self): 1 / 0\nraise A", "no message that could be shown"),
        ("def model(train, classes, price):\n    raise SystemExit(1)", "model() failed: SystemExit"),
        ("(" * 3000, "the file does not run"),
        ("\0", "the file does not run"),
    ],
)  # fmt: skip
def test_programs_that_are_none(cli: Any, text: str, message: str) -> None:
    Path("mine.py").write_text(text)
    done = cli("run", "./mine.py", "--out", "out")
    assert done.code == 2 and message in done.err and not Path("out").exists()


def test_names_that_are_none(cli: Any) -> None:
    assert "there is no such home" in cli("run", "~nobody-of-this-name/x.py").err
    assert cli("run", "~nobody-of-this-name/x.py").code == 2
    assert cli("copy", "", "mine2.py").code == 2
