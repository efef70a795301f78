"""What a check of rows allocates beside the rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, TensorDataset

import bayesprune as bp
from bayesprune.gated.rows import check_targets
from bayesprune.rows import RowForm, rows_from
from bayesprune.rows.form import Form

REPOSITORY = Path(__file__).parents[2]
X, Y = torch.randn(20_000, 40), torch.randn(20_000, 20)


class Largest(TorchDispatchMode):
    """The largest tensor that an operation makes, in bytes; views make none."""

    def __init__(self, *known):
        super().__init__()
        self.bytes, self.known = 0, {t.untyped_storage().data_ptr() for t in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in self.known:
                self.bytes = max(self.bytes, made.untyped_storage().nbytes())
        return result


def test_rows_are_checked_block_by_block():
    with Largest(X, Y) as largest:
        rows_from((X, Y), "train", form=Form.of(RowForm.of(X), "labels"))
    # the parts of an operation (|x| and two comparisons) are at most 1.6 times the block
    assert 0 < 1.6 * largest.bytes < 0.05 * X.untyped_storage().nbytes()


def test_targets_are_checked_block_by_block():
    outputs = torch.zeros(1, 20)
    for likelihood, y in (
        (bp.Gaussian(rows=20_000), Y),
        (bp.Poisson(rows=20_000), Y.abs().round()),
        (bp.Bernoulli(rows=20_000), (Y > 0).float()),
    ):
        with Largest(y, outputs, *likelihood.parameters()) as largest:
            check_targets(likelihood, outputs, y, "train")
        assert 1.6 * largest.bytes < 0.05 * y.untyped_storage().nbytes(), type(likelihood).__name__


def test_the_whole_at_once_would_be_seen():
    with Largest(X) as largest:
        torch.isfinite(X).all()
    assert largest.bytes >= 0.25 * X.untyped_storage().nbytes()


LINUX = Path("/proc/self/clear_refs")


def peak(act):
    """Bytes by which this process grew at most, beyond what it had before: as the system counts them."""
    LINUX.write_text("5")  # begins the count anew
    before = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    act()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")) - before


def growth(dtype):
    """Source of rows → growth of the process by a check of them, in shares of the rows; and all at once."""
    x, y = torch.ones(400_000, 64, dtype=dtype), torch.zeros(400_000, dtype=torch.int64)
    sources = {
        "tensors": (x, y), "numpy": (x.numpy(), y.numpy()), "dataset": TensorDataset(x, y),
        "loader": DataLoader(TensorDataset(x, y), batch_size=400),
    }  # fmt: skip
    grown = {}
    for name, source in sources.items():

        def check(source=source):
            rows = rows_from(source, "train", form=Form.of(RowForm.of(x), "labels"))
            if isinstance(source, DataLoader):  # it is checked when its batches come
                next(iter(rows.epoch(400, 0, 0)))

        check()
        grown[name] = peak(check) / x.untyped_storage().nbytes()
    return grown, peak(lambda: torch.isfinite(x).all()) / x.untyped_storage().nbytes()


@pytest.mark.skipif(not LINUX.exists(), reason="the system's own count is Linux'")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.uint8], ids=str)
def test_as_the_system_counts_it(dtype):
    """In a process of its own: what other tests have freed, a process need not grow for."""
    code = f"import json, torch; from {__name__} import growth; print(json.dumps(growth({dtype})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    grown, whole = json.loads(done.stdout)
    assert max(grown.values()) <= 0.05, grown
    if dtype.is_floating_point:
        assert whole > 0.5
