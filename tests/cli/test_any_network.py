"""The command line on programs whose networks are no chains of layers."""

import importlib.util
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import bayesprune as bp
from bayesprune.structure.graph import PlainGraph

PROGRAM = '''"""A residual network of my own, and one whose sizes are written down."""
import torch
from torch import nn

import bayesprune as bp

EPOCHS = 4
BATCH_SIZE = 32
PRICES = {"stem": 30.0, "*": 4.0}
LAYERS = "none"
RECIPE = bp.Recipe(
    shrink=bp.Shrink(every=5),
    gates=bp.GateSteps(learning_rate=0.3, momentum=0.9, every=1),
    learning_rate=1e-2,
    warmup=0.05,
    ramp=0.1,
    decide=0.7,
    averaging=0.5,
)


class Residual(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem, self.norm = nn.Linear(784, 24), nn.BatchNorm1d(24)
        self.up, self.down, self.head = nn.Linear(24, 20), nn.Linear(20, 24), nn.Linear(24, classes)

    def forward(self, x):
        x = self.norm(self.stem(x.flatten(1))).relu()
        return self.head(x + self.down(self.middle(self.up(x))))

    def middle(self, x):
        return x.relu()


class Literal(Residual):
    def middle(self, x):
        return torch.cat(x.split([8, 12], 1)[::-1], 1).roll(1, 1).relu()


NETWORK = Residual


def model(train, classes, price):
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(PRICES if price is None else price))
    likelihood = bp.Categorical(rows=len(train.y))
    return bp.gate(NETWORK(classes), train.x[:1], prior=prior, likelihood=likelihood, layers=LAYERS)
'''


@pytest.fixture
def program(cli: Any) -> Path:
    path = Path("residual.py")
    path.write_text(PROGRAM)
    Path("literal.py").write_text(PROGRAM.replace("NETWORK = Residual", "NETWORK = Literal"))
    return path


def own_class(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NETWORK(10)


def result_of(folder: str) -> dict[str, Any]:
    result = json.loads((Path(folder) / "result.json").read_text())
    assert isinstance(result, dict)
    return result


@pytest.mark.parametrize("name", ["residual", "literal"])
def test_a_run_leaves_everything_behind(cli: Any, program: Path, name: str) -> None:
    done = cli("run", f"./{name}.py", "--out", "out")
    assert done.code == 0
    files = "run.json result.json history.json pruned.safetensors architecture.json gates.png posterior.nc"
    files += " evidence.json report.html training_rows.safetensors files.json"
    assert {path.name for path in Path("out").iterdir()} == {*files.split(), "checkpoints"}
    assert "Warning" not in done.err
    result, network = result_of("out"), bp.load("out")
    test = bp.data.load("digits").test
    assert isinstance(network, PlainGraph)
    error = 100 * float((network(test.x).argmax(1) != test.y).float().mean())
    assert result["test_error_percent"] == pytest.approx(error)
    stem, up = result["architecture"][0], sum(result["architecture"][1:])  # whose parts stay apart
    assert result["groups"] == (["stem", "up"] if name == "residual" else ["stem", "up", "up_2"])
    assert sum(result["dense_architecture"]) == 24 + 20 and 0 < stem < 24 and 0 < up < 20
    kept = 784 * stem + 3 * stem + stem * up + up + up * stem + stem + 10 * stem + 10
    assert result["parameters_kept"] == kept == sum(p.numel() for p in network.parameters())
    assert result["macs_kept"] == 784 * stem + 2 * stem * up + 10 * stem == bp.count(network, test.x[:1]).macs
    for key in ("parameters", "macs"):
        share = 100 * result[f"{key}_kept"] / result[f"dense_{key}"]
        assert result[f"{key}_kept_percent"] == pytest.approx(share)
    assert f"Units kept    stem {stem} of 24, up " in done.out
    assert 'bp.load("out")' in done.out and "bayesprune copy" not in done.out


def test_a_section_that_is_removed_is_nowhere_in_the_files(cli: Any, program: Path) -> None:
    program.write_text(PROGRAM.replace('LAYERS = "none"', 'LAYERS = "sections"'))
    done = cli("run", "./residual.py", "--price", "stem=20,up=5,layers=1e5", "--out", "out")
    assert done.code == 0 and "layers 0 of 1" in done.out
    assert {name.partition(".")[0] for name in bp.load("out").state_dict()} == {"stem", "norm", "head"}
    x = torch.rand(3, 1, 28, 28)
    assert cli("export", "out", "deployed").code == 0
    assert torch.equal(bp.load("deployed")(x), bp.load("out")(x))


def test_the_saved_network_fits_its_own_class(cli: Any, program: Path) -> None:
    cli("run", "./residual.py", "--out", "out", "--quiet")
    own, network, x = bp.load("out", into=own_class(program)), bp.load("out"), torch.rand(3, 1, 28, 28)
    assert type(own).__name__ == "Residual" and own.stem.out_features == result_of("out")["architecture"][0]
    assert torch.equal(own(x), network(x))


def test_an_interrupted_run_goes_on_to_the_bit_equal_result(
    cli: Any, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("run", "./literal.py", "--inference", "./stopping.py", "--out", "whole", "--quiet")
    monkeypatch.setenv("STOP_AFTER", "2")
    monkeypatch.setenv("STOP_BY", signal.SIGINT.name)
    stopped = cli("run", "./literal.py", "--inference", "./stopping.py", "--out", "parts", "--quiet")
    assert stopped.code == 130
    assert "/literal.py --inference " in stopped.err and "/stopping.py --resume --out parts" in stopped.err
    for words in (("parts", "x"), ("parts", "x.onnx")):
        done = cli("export", *words)
        assert done.code == 2 and "has not finished" in done.err
    monkeypatch.setenv("STOP_AFTER", "0")
    done = cli("run", "./literal.py", "--inference", "./stopping.py", "--resume", "--out", "parts")
    assert done.code == 0 and "literal on digits, 4 epochs" in done.out
    for file in ("pruned.safetensors", "architecture.json"):
        assert Path("whole", file).read_bytes() == Path("parts", file).read_bytes()


@pytest.mark.parametrize("name", ["residual", "literal"])
def test_it_is_exported(cli: Any, program: Path, name: str) -> None:
    cli("run", f"./{name}.py", "--epochs", "2", "--out", "out", "--quiet")
    done, x = cli("export", "out", "deployed"), torch.rand(3, 1, 28, 28)
    assert done.code == 0 and 'bayesprune.load("deployed")' in done.out
    assert torch.equal(bp.load("deployed")(x), bp.load("out")(x))
    if all(importlib.util.find_spec(package) for package in ("onnx", "onnxscript", "onnxruntime")):
        import onnxruntime

        assert cli("export", "out", "net.onnx").code == 0
        (y,) = onnxruntime.InferenceSession("net.onnx").run(None, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), bp.load("out")(x), atol=1e-5, rtol=1e-4)


def test_what_cannot_be_saved_is_refused_before_it_is_trained(cli: Any, program: Path, files: Any) -> None:
    program.write_text(PROGRAM.replace("return x.relu()", "return x.relu() * torch.special.bessel_j0(x)"))
    before = files(Path())
    done = cli("run", "./residual.py", "--out", "out")
    assert done.code == 2
    assert "The Residual cannot be saved" in done.err and "aten.special_bessel_j0" in done.err
    assert "ELBO" not in done.err and files(Path()) == before


def test_several_seeds(cli: Any, program: Path) -> None:
    assert cli("run", "./residual.py", "--epochs", "2", "--seeds", "2", "--out", "two", "--quiet").code == 0
    for seed in (0, 1):
        assert cli("export", f"two/seed-{seed}", f"deployed-{seed}").code == 0
    assert len(result_of("two")["seeds"]) == 2
