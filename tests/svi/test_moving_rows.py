"""By which rows moves are judged: from loaders and streams, bounded, and without a trace of the pass."""

import warnings

import torch
from torch.utils.data import DataLoader, TensorDataset

import bayesprune as bp
from bayesprune.svi.batches import Batches
from bayesprune.svi.moving_rows import _collected, most_rows, rows_for
from tests.svi.test_moves import ROWS, gated_for, mask_of, rows


def fitted(train, moves, seed=0, **settings):
    x, _ = rows(seed, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bp.fit(
            gated_for(x, seed), train, epochs=25, seed=seed, progress=False, recipe=bp.Recipe(moves=moves),
            **settings,
        )  # fmt: skip


class Stream:
    """Batches of an iterable of no length, which tells how many rows it has dealt."""

    def __init__(self, x, y, endless=False):
        self.rows, self.endless, self.dealt = (x, y), endless, 0

    def __iter__(self):
        while True:
            for x, y in zip(*(part.split(20) for part in self.rows), strict=True):
                self.dealt += len(x)
                yield x, y
            if not self.endless:
                return


def loader_of(x, y, seed=3, **settings):
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(x, y), 50, shuffle=True, generator=generator, **settings)


def test_a_loader_s_rows_judge_as_the_same_tensors_do():
    x, y = rows(0, 0.0)
    result = fitted(loader_of(x, y), bp.Moves())
    assert result.decision.rows == ROWS and result.decision.moves and not result.decision.why_none
    assert mask_of(result) == (1, 0, 1, 0, 0, 0) != mask_of(fitted(loader_of(x, y), None))


def test_the_pass_leaves_what_a_loader_and_torch_draw_as_they_were():
    x, y = rows(1, 0.0)
    one, other = (fitted(loader_of(x, y), moves, 1) for moves in (None, bp.Moves(single=False)))
    assert other.decision.rows == ROWS
    for a, b in zip(one.gated.parameters(), other.gated.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_training_goes_on_from_its_state_with_the_rows_of_a_loader_begun_elsewhere():
    x, y = rows(0, 0.0)
    found = []
    for seed in (3, 8):
        training = bp.Training(gated_for(x, 0), steps=8, rows=loader_of(x, y, seed))
        found.append(training._rows_for_moves())
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_a_stream_of_no_length_is_gone_through_as_far_as_it_has_rows():
    result = fitted(Stream(*rows(0, 0.0)), bp.Moves(), rows=ROWS)
    assert result.decision.rows == ROWS and mask_of(result) == (1, 0, 1, 0, 0, 0)
    endless = Stream(*rows(0, 0.0), endless=True)
    batches = batches_of(endless, ROWS)
    before = endless.dealt
    x, y = rows_for(gated_for(endless.rows[0], 0), batches, bp.Moves())
    assert (
        endless.dealt - before == ROWS and torch.equal(x, endless.rows[0]) and torch.equal(y, endless.rows[1])
    )


def batches_of(source, count=None):
    return Batches(source, None, torch.device("cpu"), 0, rows=count)


def test_no_more_are_collected_than_a_few_masks_can_be_asked_of():
    x, y = torch.randn(20_000, 6), torch.randn(20_000, 1)
    gated = gated_for(x, 0)
    assert most_rows(gated, bp.Moves()) == 4166  # 4 masks of 6 weights
    stream = Stream(x, y)
    batches = batches_of(stream, 20_000)
    before = stream.dealt
    told = rows_for(gated, batches, bp.Moves())
    assert "too long for so many rows (20,000, and up to 4,166" in told and stream.dealt == before
    loader = DataLoader(TensorDataset(x, y), 50)
    assert rows_for(gated, batches_of(loader), bp.Moves()) == told
    assert len(rows_for(gated, batches_of(Stream(x, y), 20_000), bp.Moves(masks=9))[0]) == 20_000


def test_targets_have_to_be_there():
    x, y = rows(0, 0.0)
    batches = batches_of((x, y))
    batches.source.y = None
    assert rows_for(gated_for(x, 0), batches, bp.Moves()) == "the rows have no targets"


def test_workers_that_persist_are_asked_before_the_first_pass():
    x, y = rows(0, 0.0)
    loader = loader_of(x, y, num_workers=1, persistent_workers=True)
    result = fitted(loader, bp.Moves())
    assert result.decision.rows == ROWS and len(result.history) == 25


def test_batches_that_cannot_be_put_together_judge_no_moves():
    """Sequences of several lengths, or inputs that are not counted by rows, such as edges of a graph."""
    y = torch.zeros(4, 1)
    longer = [(torch.zeros(4, 9, 2), y), (torch.zeros(4, 7, 2), y)]
    edges = [(torch.zeros(11, 2), y), (torch.zeros(11, 2), y)]
    for batches in (longer, edges):
        assert "rows of one size" in _collected(iter(batches), 100, 8)
    x, targets = _collected(iter([longer[0], longer[0]]), 100, 8)
    assert x.shape == (8, 9, 2) and targets.shape == (8, 1)


def test_a_pass_that_meets_bad_rows_leaves_it_to_the_training_to_say_where():
    x, y = rows(0, 0.0)
    gated = gated_for(x, 0)
    x[70, 2] = float("nan")
    batches = Batches(DataLoader(TensorDataset(x, y), 50), None, torch.device("cpu"), 0, form=gated.form)
    said = rows_for(gated, batches, bp.Moves())
    assert isinstance(said, str) and "NaN" in said and "batch 2" in said
