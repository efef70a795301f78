"""What a check of rows allocates beside the rows."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bayesprune as bp
from bayesprune.gated.rows import check_targets
from bayesprune.rows import RowForm, rows_from

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
        rows_from((X, Y), "train", form=RowForm.of(X))
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
