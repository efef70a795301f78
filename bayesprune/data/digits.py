"""Scikit-learn's digits: 1,797 real handwritten digits that need no download."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from bayesprune.data.dataset import Dataset, Split
from bayesprune.errors import DataError
from bayesprune.ranges import is_whole

TEST_SHARE = 0.2
SPLIT_SEED = 0


def digits(size: int = 28) -> Dataset:
    """The digits, enlarged from 8×8 by bilinear interpolation and split 80/20, class by class, always alike.

    With pixels as squares whose corners coincide (``align_corners=False``), a value of the large image is the
    mean of the four nearest small ones, weighted by nearness. At size 32 each pixel becomes 4 × 4 of them.

    Args:
        size: height and width of the enlarged images, at least 8. 28 are the data ``digits``, MNIST's size;
            32 are ``digits-32``, CIFAR's.

    Returns:
        1,437 training and 360 test rows (rows, 1, size, size), in [0, 1], of 10 classes; the rows of the two
        splits are the same at every size.

    Raises:
        DataError: the size is below 8: interpolation would skip pixels.

    Source:
        E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning
        Repository.

    Example:
        >>> data = digits()
        >>> tuple(data.train.x.shape), len(data.test), data.classes
        ((1437, 1, 28, 28), 360, 10)
        >>> tuple(digits(32).train.x.shape)
        (1437, 1, 32, 32)
    """
    if not is_whole(size) or size < 8:
        raise DataError(
            f"digits(size={size!r}): the images are 8 × 8 and are only enlarged. Give a whole number from 8."
        )
    from sklearn.datasets import load_digits  # here: scikit-learn takes longer to import than PyTorch

    bunch = load_digits()
    small = torch.from_numpy(bunch.images.astype(np.float32)).unsqueeze(1) / 16  # (1797, 1, 8, 8) in [0, 1]
    x = interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    y = torch.from_numpy(bunch.target.astype(np.int64))
    train, test = split_rows(bunch.target)
    name = "digits" if size == 28 else f"digits-{size}"
    return Dataset(name, Split(x[train], y[train]), Split(x[test], y[test]), classes=10)


def split_rows(target: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which rows are for training and which for testing, always the same.

    Args:
        target: (rows,), the class of each.

    Returns:
        Their positions.
    """
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        np.arange(len(target)), test_size=TEST_SHARE, stratify=target, random_state=SPLIT_SEED
    )
    return train, test
