"""Scikit-learn's digits as sequences of integers: something with a vocabulary that needs no download."""

from __future__ import annotations

import torch

from bayesprune.data.dataset import Dataset, Split
from bayesprune.data.digits import split_rows


def digit_tokens() -> Dataset:
    """The digits' 8 × 8 images read row by row: 64 tokens, each one of 17 grey levels, 0 to 16.

    This is no language: it is the one source of sequences of integers that needs no download. What it has in
    common with text is what the library is asked to do, a vocabulary, an order, and long sequences of which
    few positions matter. The rows, and the split, are those of ``digits``.

    Returns:
        1,437 training and 360 test rows (rows, 64), int64, of 10 classes.

    Source:
        E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning
        Repository.

    Example:
        >>> data = digit_tokens()
        >>> tuple(data.train.x.shape), int(data.train.x.max()), data.classes
        ((1437, 64), 16, 10)
    """
    from sklearn.datasets import load_digits  # here: scikit-learn takes longer to import than PyTorch

    bunch = load_digits()
    x = torch.from_numpy(bunch.data).long()  # (1797, 64), 0 … 16
    y = torch.from_numpy(bunch.target).long()
    train, test = split_rows(bunch.target)
    return Dataset("digits-tokens", Split(x[train], y[train]), Split(x[test], y[test]), classes=10)
