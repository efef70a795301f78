import torch
from sklearn.datasets import load_digits

from bayesprune.data import digit_tokens, digits, load


def test_tokens_are_the_grey_levels_row_by_row() -> None:
    data = load("digits-tokens")
    assert (data.name, data.classes, len(data.test)) == ("digits-tokens", 10, 360)
    assert data.train.x.shape == (1437, 64) and data.train.x.dtype == torch.int64
    assert (int(data.train.x.min()), int(data.train.x.max())) == (0, 16)
    whole = torch.cat([data.train.x, data.test.x])
    assert torch.equal(whole.unique(dim=0), torch.from_numpy(load_digits().data).long().unique(dim=0))


def test_the_split_is_the_images_split() -> None:
    tokens, images = digit_tokens(), digits(size=8)
    assert torch.equal(tokens.test.y, images.test.y)
    assert torch.equal(tokens.test.x, (16 * images.test.x).round().long().flatten(1))
