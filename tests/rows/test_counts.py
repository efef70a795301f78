"""How many rows an epoch is of, by whatever deals them."""

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from bayesprune.data import Split
from bayesprune.errors import DataError, SettingsError
from bayesprune.rows import rows_from, rows_of_loader

X, Y = torch.arange(50.0).reshape(50, 1), torch.arange(50) % 3
PAIRS = TensorDataset(X, Y)


class Numbered(Dataset):
    """Rows by their number, and nothing else."""

    def __len__(self):
        return 50

    def __getitem__(self, row):
        return X[row], Y[row]


class Stream(IterableDataset):
    """Rows without a length."""

    def __init__(self, rows=50):
        self.rows = rows

    def __iter__(self):
        return iter([(X[i % 50], Y[i % 50]) for i in range(self.rows)])


class Measured(Stream):
    """Rows with a length."""

    def __len__(self):
        return 50


class Endless(IterableDataset):
    """The same row for ever."""

    def __iter__(self):
        while True:
            yield X[0], Y[0]


class Batches:
    """Batches that can be gone through again and again, and say nothing of their number."""

    def __iter__(self):
        return iter(list(zip(X.split(8), Y.split(8), strict=True)))


class Uneven:
    """Row numbers in batches of 1, 2, 3, …; some rows never."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(3)

    def __iter__(self):
        order = torch.randperm(45, generator=self.generator).tolist()
        return iter([order[n * (n - 1) // 2 : n * (n + 1) // 2] for n in range(1, 10)])

    def __len__(self):
        return 9


def loader(**settings):
    return DataLoader(PAIRS, **settings)


@pytest.mark.parametrize(
    "source, rows, steps",
    [
        ((X, Y), 50, 6),
        ([X, Y], 50, 6),
        ((X.numpy(), Y.numpy()), 50, 6),
        ((X, Y.numpy()), 50, 6),
        (Split(X, Y), 50, 6),
        (PAIRS, 50, 6),
        (Numbered(), 50, 6),
        (Subset(Numbered(), range(20)), 20, 2),
        (loader(batch_size=8), 50, 7),
        (loader(batch_size=8, shuffle=True), 50, 7),
        (loader(batch_size=8, shuffle=True, drop_last=True), 50, 6),
        (loader(batch_size=8, drop_last=True), 48, 6),
        (loader(batch_size=8, sampler=SubsetRandomSampler(range(20))), 20, 3),
        (loader(batch_size=8, sampler=SubsetRandomSampler(range(20)), drop_last=True), 20, 2),
        (loader(batch_size=8, sampler=WeightedRandomSampler(torch.ones(50), 30)), 30, 4),
        (loader(batch_size=8, sampler=RandomSampler(PAIRS, replacement=True, num_samples=70)), 70, 9),
        (loader(batch_size=8, sampler=range(10)), 10, 2),
        (loader(batch_sampler=BatchSampler(SequentialSampler(range(12)), 5, False)), 12, 3),
        (loader(batch_sampler=[[0, 1, 2], [3], [4, 5]]), 6, 3),
        (loader(batch_sampler=Uneven()), 45, 9),
        (loader(sampler=BatchSampler(RandomSampler(range(24)), 6, False), batch_size=None), 24, 4),
        (DataLoader(Measured(), batch_size=8), 50, 7),
    ],
)
def test_an_epoch_gives_as_many_rows_as_are_counted(source, rows, steps):
    found = rows_from(source, "train")
    size = found.batch_size_of(None, 8)
    assert (found.count, found.steps(size)) == (rows, steps)
    for number in range(2):
        batches = list(found.epoch(size, 0, number))
        assert len(batches) == steps and all(len(x) == len(y) for x, y in batches)
        given = sum(len(x) for x, _ in batches)
        assert rows - size < given <= rows
    if not isinstance(source, DataLoader):
        assert sum(len(x) for x in found.inputs(7)) == rows


def test_counting_moves_no_random_number_of_a_batch_sampler():
    sampler, twin = Uneven(), Uneven()
    before = torch.get_rng_state()
    assert rows_of_loader(loader(batch_sampler=sampler)).rows == 45
    assert list(sampler) == list(twin) and torch.equal(before, torch.get_rng_state())


def test_a_stream_says_how_many_rows_it_has():
    for source in (Stream(), DataLoader(Stream(), batch_size=8), Batches()):
        assert rows_from(source, "train").count is None
        assert sum(len(x) for x in rows_from(source, "train").inputs()) == 50
    found = rows_from(Stream(), "train", rows=50, batch_size=8)
    assert found.count == 50 and found.steps(8) == 7
    assert sum(len(x) for x, _ in found.epoch(8, 0, 0)) == 50
    assert rows_from(Batches(), "train", rows=50).steps(8) == 7


@pytest.mark.parametrize("told, message", [(40, "more than 40 rows, and 40"), (60, "gave 50 rows, and 60")])
def test_a_pass_of_another_number_of_rows_is_refused(told, message):
    found = rows_from(DataLoader(Stream(), batch_size=5), "train", rows=told)
    with pytest.raises(DataError, match=message):
        list(found.epoch(5, 0, 0))


def test_a_stream_without_end_ends_in_an_error_not_never():
    found = rows_from(DataLoader(Endless(), batch_size=5), "train", rows=20)
    with pytest.raises(DataError, match=r"more than 20 rows.*islice"):
        list(found.epoch(5, 0, 0))


def test_a_count_that_is_told_wrongly_is_refused_and_a_sample_may_be_of_more():
    with pytest.raises(DataError, match=r"rows=50 was said.*20 rows"):
        rows_from(loader(sampler=SubsetRandomSampler(range(20))), "train", rows=50)
    with pytest.raises(DataError, match=r"rows=49 was said, and there are 50"):
        rows_from((X, Y), "train", rows=49)
    few = loader(batch_size=5, sampler=RandomSampler(PAIRS, num_samples=10))
    found = rows_from(few, "train", rows=50)
    assert found.count == 50 and found.steps(5) == 2 and len(list(found.epoch(5, 0, 0))) == 2
    assert rows_from(few, "train").count == 10


def test_a_loader_that_gives_other_rows_than_its_sampler_draws_is_refused():
    def halved(items):
        x, y = torch.utils.data.default_collate(items)
        return x[::2], y[::2]

    found = rows_from(loader(batch_size=10, collate_fn=halved), "train")
    with pytest.raises(DataError, match=r"gave 25 rows, and 50 were counted by its sampler"):
        list(found.epoch(10, 0, 0))


@pytest.mark.parametrize(
    "made, asked, message",
    [
        (loader(batch_size=20), 8, "batch_size=8 stands beside train, a DataLoader with batches of 20"),
        (loader(batch_sampler=[[0, 1]]), 2, "batches of its own"),
        ((X, Y), 2.5, "batch_size=2.5"),
        ((X, Y), True, "batch_size=True"),
        ((X, Y), 0, "batch_size=0"),
    ],
)
def test_a_batch_size_beside_a_loaders_own_is_refused(made, asked, message):
    with pytest.raises(SettingsError, match=message):
        rows_from(made, "train").batch_size_of(asked, 128)


def test_order_is_that_of_seed_and_epoch_alone_for_data_sets_as_for_tensors():
    one, two = rows_from((X, Y), "train"), rows_from(Numbered(), "train")
    for number in (0, 3):
        pairs = zip(one.epoch(8, 5, number), two.epoch(8, 5, number), strict=True)
        assert all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in pairs)
    first, other = next(one.epoch(8, 5, 0)), next(one.epoch(8, 5, 1))
    assert not torch.equal(first[0], other[0])


def test_inputs_alone_will_do_where_targets_are_not_needed():
    for source in (X, X.numpy(), TensorDataset(X), DataLoader(TensorDataset(X), batch_size=7), (X, Y)):
        found = rows_from(source, "trained_on", targets=False)
        assert torch.equal(torch.cat(list(found.inputs(16))), X)
        assert torch.equal(found.tensors()[0], X)


def test_arrays_that_may_not_be_written_to_are_shared_not_copied():
    array = np.zeros((4, 2), "float32")
    array.flags.writeable = False
    x, _ = rows_from((array, np.zeros(4, "int64")), "train").tensors()
    assert x.data_ptr() == array.__array_interface__["data"][0]


def test_a_stream_that_drops_what_fills_no_batch():
    found = rows_from(DataLoader(Stream(), batch_size=8, drop_last=True), "train", rows=50)
    assert found.steps(8) == 6 and [len(x) for x, _ in found.epoch(8, 0, 0)] == [8] * 6
    assert rows_from(DataLoader(Stream(5), batch_size=8, drop_last=True), "train", rows=5).steps(8) == 1


class Shared(Stream):
    """Each worker has every other row."""

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        return iter([(X[i], Y[i]) for i in range(worker.id, self.rows, worker.num_workers)])


def test_each_worker_of_a_stream_may_drop_rows():
    loader = DataLoader(Shared(46), batch_size=8, drop_last=True, num_workers=2)
    assert sum(len(x) for x, _ in rows_from(loader, "train", rows=46).epoch(8, 0, 0)) == 32
    with pytest.raises(DataError, match="gave 32 rows, and 47 were said"):
        list(rows_from(loader, "train", rows=47).epoch(8, 0, 0))


def test_a_stream_that_is_wrong_about_its_batches_is_refused():
    class Wrong(Batches):
        def __len__(self):
            return 9

    with pytest.raises(DataError, match=r"a pass gave 7 batches, and 9 were planned.*__len__"):
        list(rows_from(Wrong(), "train", rows=50).epoch(8, 0, 0))


def test_fewer_rows_than_a_batch_are_one():
    for source in ((X[:5], Y[:5]), Subset(Numbered(), range(5))):
        found = rows_from(source, "train")
        assert found.steps(8) == 1 and [len(x) for x, _ in found.epoch(8, 0, 0)] == [5]
        assert found.smallest_batch(8) == 5 and found.smallest_batch(3) == 3


def test_tensors_are_read_where_they_lie_and_without_their_graph():
    x = X.clone().requires_grad_()
    for source in ((x, Y), TensorDataset(x, Y), Split(x, Y)):
        found, _ = rows_from(source, "train").tensors()
        assert found.data_ptr() == x.data_ptr() and not found.requires_grad


def test_a_data_set_that_gives_several_rows_at_once_is_asked_once_a_batch():
    class Several(Numbered):
        asked = 0

        def __getitem__(self, row):
            raise AssertionError("one by one")

        def __getitems__(self, rows):
            self.asked += 1
            return [(X[row], Y[row]) for row in rows]

    data = Several()
    assert sum(len(x) for x, _ in rows_from(data, "train").epoch(8, 0, 0)) == 48 and data.asked == 6
