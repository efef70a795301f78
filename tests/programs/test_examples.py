"""Every example, run as a script in an empty folder with few epochs."""

import re
import runpy
import sys
from pathlib import Path

import pytest

import bayesprune as bp

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")


@pytest.fixture
def run(monkeypatch, capsys):
    """run(name, words...) → what `python examples/name.py words...` prints."""

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def parameters(folder):
    return sum(parameter.numel() for parameter in bp.load(folder).parameters())


def test_every_example_is_tested():
    tested = {
        "certify_lenet", "custom_prior", "minibayesprune", "own_network", "posterior_diagnostics",
        "prune_lenet_mnist", "teacher_student",
    }  # fmt: skip
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


def test_custom_prior(run):
    out = run("custom_prior", "--epochs", "2", "--out", "saved")
    assert "reloaded bit-equal" in out
    percent = float(re.search(r"([\d.]+) % of the parameters", out)[1])
    assert 100 * parameters("saved") / (785 * 100 + 101 * 10) == pytest.approx(percent, abs=0.06)
    assert 0 <= float(re.search(r"test error ([\d.]+) %", out)[1]) < 80


def test_minibayesprune(run):
    out = run("minibayesprune", "--epochs", "2")
    assert re.search(r"[\d,]+ of 79,510 parameters, test error [\d.]+ %", out)


def test_posterior_diagnostics(run):
    out = run("posterior_diagnostics", "--epochs", "3", "--out", "mine.png")
    table = [line.split() for line in out.splitlines() if re.match(r"\s+\d+ ", line)]
    assert [int(row[0]) for row in table] == [1, 2, 3, 3]  # the last epoch once more, as it ended
    assert re.fullmatch(r"\d+-\d+", table[-1][-1]) and table[-1][-2] == "0"
    assert re.search(r"\d+ gates were put at the nearer vertex undecided; 0 are so now", out)
    assert Path("mine.png").read_bytes()[:4] == b"\x89PNG"


def test_prune_lenet_mnist(run):
    out = run("prune_lenet_mnist", "--data", "digits", "--epochs", "1", "--out", "small")
    before, after = re.search(r"parameters ([\d,]+) → ([\d,]+)", out).groups()
    assert int(before.replace(",", "")) == 431_080
    assert int(after.replace(",", "")) == parameters("small")
    assert re.search(r"conv1 +20 units, each 1,276 parameters and 94,400 MACs a row", out)
    assert 0 <= float(re.search(r"test error ([\d.]+) %", out)[1]) <= 100


def test_own_network(run):
    out = run("own_network", "--epochs", "2")
    assert re.search(r"Residual: [\d.]+ % error with [\d,]+ of 77,914 numbers", out)
    assert "'block3_conv2'" in out


@pytest.mark.nightly
def test_certify_lenet(run):
    out = run("certify_lenet", "--data", "digits", "--epochs", "3", "--alpha", "0.4", "--out", "certified")
    assert out.startswith("With probability at least 98.3333 % over the draw of the 143 calibration rows")
    left = int(re.search(r"dense 431,080 parameters, certified ([\d,]+);", out)[1].replace(",", ""))
    found = sum(int(parameter.count_nonzero()) for parameter in bp.load("certified").parameters())
    assert left == found < 431_080
    assert "\ntrue\n" in out and Path("certified/certificate.json").is_file()


def test_teacher_student(run):
    out = run("teacher_student", "--inputs", "60", "--time", "60", "--out", "mine.png")
    simulated, solved = map(float, re.search(r"error ([\d.]+) in simulation, ([\d.]+) by", out).groups())
    assert 0 < simulated < 1 and 0 < solved < 1
    assert "kept at 122 parameters" in out
    rows = [line.split() for line in out.splitlines() if line.startswith("  ")]
    random, diverse, fused, edges = (
        [float(word) for word in row if re.match(r"[\d.]+$", word)] for row in rows
    )
    assert simulated < fused[0] < diverse[0] < random[0]
    assert fused[1] == pytest.approx(fused[0], rel=0.25) and edges[1] == pytest.approx(edges[0], rel=0.25)
    assert Path("mine.png").read_bytes()[:4] == b"\x89PNG"
