"""Examples of other people's loops, each run by two gloo processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRAMEWORKS = ROOT / "examples/frameworks"
STARTED_BY_TORCHRUN = ("plain", "with_accelerate", "with_trainer")
NIGHTLY = ("with_accelerate", "with_fabric", "with_trainer")
EPOCHS = 8


def test_every_example_is_tested():
    tested = {*STARTED_BY_TORCHRUN, "with_fabric", "with_lightning"}
    assert {path.stem for path in FRAMEWORKS.glob("*.py")} == tested


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=[pytest.mark.nightly] if path.stem in NIGHTLY else [])
        for path in sorted(FRAMEWORKS.glob("*.py"))
    ],
)
def test_two_processes_learn_one_network_within_its_budget(name, tmp_path):
    """What is not equal to the bit in both ends in an error; one of them prints."""
    started = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*(started if name in STARTED_BY_TORCHRUN else []), str(FRAMEWORKS / f"{name}.py")]
    done = subprocess.run(
        [sys.executable, *words, "--epochs", str(EPOCHS)], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    ((error, parameters),) = re.findall(r"([\d.]+) % error with ([\d,]+) parameters", done.stdout)
    assert float(error) < 40  # of ten classes
    assert 0.09 < int(parameters.replace(",", "")) / 79_510 <= 0.1
