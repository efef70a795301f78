"""Scikit-learn's digits: 1,797 real handwritten digits that need no download."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import interpolate

from bayesprune.data.dataset import Dataset, Split

TEST_SHARE = 0.2
SPLIT_SEED = 0


def digits() -> Dataset:
    """The digits, enlarged from 8×8 to 28×28 (bilinear) and split 80/20, class by class, always the same way.

    Returns:
        1,437 training and 360 test rows of 10 classes.

    Source:
        E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning
        Repository.

    Example:
        >>> data = digits()
        >>> tuple(data.train.x.shape), len(data.test), data.classes
        ((1437, 1, 28, 28), 360, 10)
    """
    bunch = load_digits()
    small = torch.from_numpy(bunch.images.astype(np.float32)).unsqueeze(1) / 16  # (1797, 1, 8, 8) in [0, 1]
    x = interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
    y = torch.from_numpy(bunch.target.astype(np.int64))
    train, test = train_test_split(
        np.arange(len(y)), test_size=TEST_SHARE, stratify=bunch.target, random_state=SPLIT_SEED
    )
    return Dataset("digits", Split(x[train], y[train]), Split(x[test], y[test]), classes=10)
