"""Rows that are none, or not whole: place, value, remedy."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bayesprune.data import digits
from bayesprune.errors import DataError
from bayesprune.rows import RowForm, rows_from
from bayesprune.rows.checks import check_finite
from bayesprune.rows.form import Form

X, Y = torch.zeros(12, 3), torch.zeros(12).long()


class Dicts(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, row):
        return {"pixels": X[row], "label": Y[row]}


class Ragged(Dicts):
    def __getitem__(self, row):
        return torch.zeros(row), 0


class NotANumber(Dicts):
    def __getitem__(self, row):
        return X[0] / 0, 0


class Endless:
    def __getitem__(self, row):
        return X[0], Y[0]


def one_pass(source, **settings):
    return list(rows_from(source, "train", **settings).epoch(4, 0, 0))


@pytest.mark.parametrize(
    "source, message",
    [
        (None, "train: NoneType holds no rows.*pair"),
        (5, "int holds no rows"),
        ("digits", "str holds no rows"),
        (nn.Linear(2, 2), "Linear holds no rows"),
        (digits(), r"data.train or data.test"),
        (X, "inputs alone"),
        (X.numpy(), "inputs alone"),
        ((X,), "inputs alone"),
        ((X, Y, Y), r"3 parts.*\(\(a, b\), y\)"),
        ({"x": X, "y": Y}, r"dict with the keys 'x', 'y'.*\(d\['x'\], d\['y'\]\)"),
        (Dicts(), r"rows \d+ ….*dict with the keys 'pixels', 'label'"),
        (DataLoader(Dicts(), batch_size=4), r"batch 1 of epoch 1: a dict.*collate_fn"),
        (DataLoader(TensorDataset(X, Y, Y), batch_size=4), r"batch 1.*3 parts.*collate_fn"),
        (DataLoader(TensorDataset(X), batch_size=4), r"batch 1.*inputs alone"),
        (Ragged(), r"cannot be stacked.*collate_fn"),
        (Endless(), "does not say how many"),
        ([(X[0], Y[0]), (X[1], Y[1]), (X[2], Y[2])], r"list of 3 tuple.*DataLoader\(your_list\)"),
        (((x, y) for x, y in zip(X, Y, strict=True)), "generator can be run through only once"),
        (DataLoader(TensorDataset(X, Y), batch_sampler=iter([[0], [1]])), "run through only once"),
        ((X.tolist(), Y), r"the inputs are list.*torch.tensor"),
        ((X, None), "the targets are NoneType"),
        ((np.array(["a", "b"]), Y[:2]), "numpy array of type <U1"),
        ((X.to_sparse(), Y), r"sparse.*to_dense"),
        ((X.to("meta"), Y), "meta"),
        ((torch.tensor(1.0), Y), "single number"),
        ((X, Y[:5]), "12 rows of inputs and 5 of targets"),
        ((X[:0], Y[:0]), "no rows"),
        (TensorDataset(X[:0], Y[:0]), "no rows"),
        (DataLoader(TensorDataset(X[:3], Y[:3]), batch_size=4, drop_last=True), "no rows"),
        (DataLoader(TensorDataset(X[:3], Y[:3]), batch_size=4, drop_last=True, shuffle=True), "no rows"),
        (NotANumber(), r"rows \d+ …: the inputs hold NaN"),
    ],
)
def test_what_holds_no_pairs_of_rows_is_refused_with_what_to_give(source, message):
    with pytest.raises(DataError, match=message):
        one_pass(source)


@pytest.mark.parametrize("told", [0, -3, 2.0, True, "12"])
def test_rows_that_are_told_are_a_number_of_rows(told):
    with pytest.raises(DataError, match="whole number"):
        rows_from((X, Y), "train", rows=told)


def test_the_first_row_that_is_not_finite_is_named_in_memory_and_in_a_loader():
    x, y = torch.randn(5000, 3), torch.zeros(5000)
    x[4321, 1] = torch.inf
    with pytest.raises(DataError, match=r"train: the inputs hold NaN or infinity, first in row 4321"):
        rows_from((x, y), "train")
    with pytest.raises(DataError, match=r"batch 5 of epoch 1: the inputs hold.*row 321"):
        one_pass(DataLoader(TensorDataset(x, y), batch_size=1000))
    y[77] = torch.nan
    with pytest.raises(DataError, match=r"targets hold NaN.*row 77"):
        rows_from((torch.zeros(5000, 3), y), "train")
    check_finite(torch.full((3, 2), 10**9), "whole numbers")


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.zeros(4, 5), r"a row has shape \(5,\), and one of the network's example \(3,\)"),
        (torch.zeros(4, 3, 1), r"shape \(3, 1\)"),
        (torch.zeros(4, 3).double(), r"type torch.float64.*x.float\(\)"),
        (torch.zeros(4, 3).half(), r"type torch.float16.*x.float\(\)"),
        (torch.zeros(4, 3).long(), r"type torch.int64.*x.float\(\)"),
    ],
)
def test_rows_of_another_form_are_refused_and_never_cast(x, message):
    form = Form.of(RowForm.of(torch.zeros(1, 3)), "labels")
    for source in ((x, Y[:4]), DataLoader(TensorDataset(x, Y[:4]), batch_size=2), TensorDataset(x, Y[:4])):
        with pytest.raises(DataError, match=message):
            one_pass(source, form=form)


def test_a_form_may_leave_sizes_open():
    form = RowForm.of(torch.zeros(1, 3, 8, 8), free=(2, 3))
    form.check(torch.zeros(2, 3, 5, 9), "train")
    with pytest.raises(DataError, match=r"example \(3, any, any\)"):
        form.check(torch.zeros(2, 1, 5, 9), "train")
