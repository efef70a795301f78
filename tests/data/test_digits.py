import pytest
import torch
from sklearn.datasets import load_digits

from bayesprune.data import digits, load
from bayesprune.errors import DataError


def test_shapes_ranges_and_stratified_split() -> None:
    data = load("digits")
    assert data.name == "digits"
    assert (len(data.train), len(data.test), data.classes) == (1437, 360, 10)
    assert data.train.x.shape == (1437, 1, 28, 28)
    assert data.train.x.dtype == torch.float32
    assert data.train.x.min() == 0
    assert data.train.x.max() == 1
    shares = data.test.y.bincount() / (data.train.y.bincount() + data.test.y.bincount())
    assert torch.all((shares - 0.2).abs() < 0.01)


def test_every_image_is_in_one_split_and_the_same_each_time() -> None:
    first, again = digits(), digits()
    assert torch.equal(first.train.x, again.train.x)
    assert torch.equal(first.test.y, again.test.y)
    images = torch.cat([first.train.x, first.test.x]).flatten(1)
    assert len(images.unique(dim=0)) == len(torch.from_numpy(load_digits().data).unique(dim=0))


def test_enlarging_keeps_the_mean_grey() -> None:
    data = digits()
    grey = torch.cat([data.train.x, data.test.x]).mean()
    assert abs(float(grey) - load_digits().data.mean() / 16) < 0.01


def test_digits_32_are_the_same_rows_four_times_as_large() -> None:
    large, usual = load("digits-32"), digits()
    assert large.name == "digits-32"
    assert large.train.x.shape == (1437, 1, 32, 32)
    assert torch.equal(large.train.y, usual.train.y) and torch.equal(large.test.y, usual.test.y)
    x = torch.cat([large.train.x, large.test.x])[:, 0]  # (1797, 32, 32)
    small = torch.from_numpy(load_digits().images).float() / 16  # (1797, 8, 8)
    torch.testing.assert_close(
        x.mean((1, 2)).sort().values, small.mean((1, 2)).sort().values, rtol=1e-4, atol=1e-4
    )
    corners = x[:, [0, 0, 31, 31], [0, 31, 0, 31]]  # nothing lies beyond them to interpolate with
    expected = small[:, [0, 0, 7, 7], [0, 7, 0, 7]]
    torch.testing.assert_close(corners.sort(0).values, expected.sort(0).values)


def test_images_are_never_made_smaller() -> None:
    with pytest.raises(DataError, match=r"size=4.*Give a whole number from 8"):
        digits(size=4)
