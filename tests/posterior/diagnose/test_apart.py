"""Training rows and held-out ones: what is given in the other's place is refused, or warned of by name."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bayesprune as bp
from bayesprune.errors import DataError, RowsWarning
from bayesprune.rows.digests import found_among, known_by

ROWS = 120
GENERATOR = torch.Generator().manual_seed(0)
X, OTHER = torch.randn(ROWS, 4, generator=GENERATOR), torch.randn(200, 4, generator=GENERATOR)
Y, Y_OTHER = (X[:, 0] > 0).long(), (OTHER[:, 0] > 0).long()


def fitted(train, seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0))
    gated = bp.gate(network, X[:1], prior=prior, likelihood=bp.Categorical(rows=ROWS))
    size = {} if isinstance(train, DataLoader) else {"batch_size": 20}
    return bp.fit(gated, train, epochs=15, progress=False, seed=seed, **size)


@pytest.fixture(scope="module")
def result():
    return fitted((X, Y))


def part(answer, name):
    (found,) = (m for m in answer.measures if m.name == name)
    return found


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
def test_a_fit_knows_the_rows_of_its_training(result):
    assert found_among(X[7:9].double(), result.trained_on).all()
    assert not found_among(OTHER, result.trained_on).any()
    streamed = fitted(DataLoader(TensorDataset(X, Y), batch_size=20, shuffle=True))
    assert streamed.trained_on is None  # they are read one by one, and are not kept
    bp.diagnose(streamed, rows=(OTHER[:ROWS], Y_OTHER[:ROWS]), draws=20)


def test_many_numbers_are_not_digested_unasked(monkeypatch):
    monkeypatch.setattr("bayesprune.rows.digests.MOST", 4 * ROWS - 1)
    assert known_by(X) is None and len(known_by(X[:-1])) == ROWS - 1


def test_held_out_rows_are_refused_as_training_rows(result):
    with pytest.raises(DataError, match=r"100 of the 100 rows were not trained on\. Give them as held_out="):
        bp.diagnose(result, rows=(OTHER[:100], Y_OTHER[:100]), draws=20)
    with pytest.raises(DataError, match="200 rows, and the fit was told of 120"):
        bp.diagnose(result, rows=(OTHER, Y_OTHER), draws=20)
    mixed = torch.cat([X[:90], OTHER[:30]]), torch.cat([Y[:90], Y_OTHER[:30]])
    with pytest.warns(RowsWarning, match="rows: 30 of the 120 rows were not trained on"):
        bp.diagnose(result, rows=mixed, draws=20)


def test_training_rows_are_refused_as_held_out_ones(result):
    with pytest.raises(
        DataError, match=r"held_out: 120 of the 120 rows were trained on\. Give them as rows="
    ):
        bp.diagnose(result, held_out=(X, Y), draws=20)
    mixed = torch.cat([X[:1], OTHER]), torch.cat([Y[:1], Y_OTHER])
    with pytest.warns(RowsWarning, match="held_out: 1 of the 201 rows were trained on"):
        bp.diagnose(result, held_out=mixed, draws=20)
    with pytest.raises(DataError, match="held_out: 60 of the 60"):
        bp.diagnose(result.gated, rows=(X, Y), held_out=(X[:60], Y[:60]), draws=20)


def test_the_calibration_error_is_judged_on_held_out_rows_alone(result):
    alone = bp.diagnose(result, rows=(X, Y), draws=20).faithful
    assert part(alone, "expected calibration error").holds is None
    assert "is of training rows, and not judged: give held_out=" in alone.why
    both = bp.diagnose(result, rows=(X, Y), held_out=(OTHER, Y_OTHER), draws=20).faithful
    found = part(both, "expected calibration error")
    assert found.holds is not None and "on 200 rows" in found.threshold
    with torch.no_grad():
        hard = bp.prune(result)(OTHER).softmax(-1).numpy()
    brier = np.square(hard - np.eye(2)[Y_OTHER.numpy()]).sum(-1).mean()
    assert both["Brier score of the hard mask"] == pytest.approx(brier, rel=1e-5)
    assert both["probability of the hard mask"] == alone["probability of the hard mask"]
    only = bp.diagnose(result, held_out=(OTHER, Y_OTHER), draws=20)
    assert part(only.faithful, "expected calibration error") == found
    assert np.isnan(only.faithful["PSIS"]) and only.calibrated.verdict == "not asked"
