import torch
from sklearn.datasets import load_digits

from bayesprune.data import digits, load


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
