"""The monitor: a martingale exactly, false alarms as declared, how soon it sees, and a state that is kept."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

from bayesprune.certify import Certificate
from bayesprune.certify.losses import Error, ExcessError, OwnLoss, Scores, Selective, each_class
from bayesprune.certify.losses.several import several_scores
from bayesprune.certify.monitor import Monitor
from bayesprune.certify.monitor.bets import STAKES, advance, first_capital, log_wealth, stakes_of
from bayesprune.certify.monitor.kept import read_state, write_state
from bayesprune.certify.monitor.running import log_evidence, lower_bound, moments
from bayesprune.certify.monitor.shape import FORMAT, MONITOR
from bayesprune.certify.paths import Weights
from bayesprune.errors import CertificateError

FALSE_ALARM = 1e-4
PATH = Weights(shares=[0.0, 0.3, 0.6, 0.9])


def wealth_of(losses, level):
    capital = advance(first_capital(), 0, losses, level)
    return np.exp(log_wealth(capital, np.arange(1, losses.shape[-1] + 1)))


# ---- bets


def test_the_capital_is_its_loop():
    losses, level = np.random.default_rng(0).beta(1, 9, size=60), 0.08
    capital, stakes = np.full(STAKES, 0.5 / STAKES), stakes_of(level)
    assert (1 - stakes * level).min() == pytest.approx(0.25) and stakes[0] == pytest.approx(1 / 16)
    for row, loss in enumerate(losses, start=1):
        capital = (capital + 1 / (2 * row * (row + 1) * STAKES)) * (1 + stakes * (loss - level))
        cash = 0.5 / (row + 1)
        assert wealth_of(losses[:row], level)[-1] == pytest.approx(capital.sum() + cash, rel=1e-9)
    assert np.exp(advance(first_capital(), 0, losses, level)[-1]) == pytest.approx(capital, rel=1e-9)


@pytest.mark.parametrize("level", [0.1, 0.5])
def test_it_is_a_martingale_at_the_level_over_all_outcomes_of_ten_rows(level):
    """E of the wealth is 1 after every row, and P(it ever reaches 1/u) ≤ u: exactly, no simulation."""
    outcomes = np.array(list(product([0.0, 1.0], repeat=10)))
    chance = (level**outcomes * (1 - level) ** (1 - outcomes)).prod(-1)
    wealth = wealth_of(outcomes, level)
    assert chance @ wealth == pytest.approx(np.ones(10), rel=1e-9)
    highest = wealth.max(1)
    for u in 1 / np.unique(highest[highest > 1]):
        assert chance[highest >= 1 / u * (1 - 1e-12)].sum() <= u * (1 + 1e-9)
    lower = (0.5 * level) ** outcomes * (1 - 0.5 * level) ** (1 - outcomes)
    assert (lower.prod(-1) @ wealth <= 1 + 1e-12).all()  # below the level it shrinks


@pytest.mark.parametrize("risk", ["at the level", "in turns", "graded"])
def test_false_alarms_are_as_rare_as_declared(risk):
    """1,500 streams of 400 rows, looked at after every row; delta 20 %, false alarm 1e-4."""
    generator, level = np.random.default_rng(1), 0.1
    chance = np.where(np.arange(400) // 20 % 2, 0.0, level) if risk == "in turns" else np.full(400, level)
    losses = (
        generator.beta(0.2, 1.8, (1500, 400))
        if risk == "graded"
        else (generator.random((1500, 400)) < chance).astype(float)
    )
    false = sum(int((wealth_of(some, level) >= 5).any(-1).sum()) for some in np.split(losses, 15))
    assert stats.binom.sf(false - 1, 1500, 0.2) > FALSE_ALARM, false / 1500


def test_a_risk_just_above_the_level_would_be_found():
    generator = np.random.default_rng(2)
    losses = (generator.random((400, 400)) < 0.14).astype(float)
    seen = sum(int((wealth_of(some, 0.1) >= 5).any(-1).sum()) for some in np.split(losses, 4))
    assert stats.binom.sf(seen - 1, 400, 0.2) < FALSE_ALARM


@pytest.mark.parametrize(("level", "half", "most"), [(0.05, 260, 600), (0.02, 700, 1500)])
def test_twice_the_risk_is_seen_soon(level, half, most):
    """100 streams: half of them, and nine in ten, within so many rows (delta 5 %)."""
    losses = (np.random.default_rng(3).random((100, most)) < 2 * level).astype(float)
    reached = wealth_of(losses, level) >= 20
    assert reached[:, :half].any(1).mean() > 0.5 and reached.any(1).mean() > 0.9


def test_it_does_not_lose_all_while_the_risk_is_low():
    """After 3,000 rows without a loss twice the risk is seen within 700: cash goes in all the time."""
    generator = np.random.default_rng(4)
    late = np.concatenate([np.zeros((40, 3000)), generator.random((40, 700)) < 0.2], 1)
    assert (wealth_of(late, 0.1) >= 20).any(1).mean() > 0.9


# ---- the lower bound


def test_the_bound_is_the_root_of_its_equation():
    losses = np.random.default_rng(5).beta(2, 8, 300)
    sums, squares = moments(0.0, 0, losses)
    foreseen, total, square = 0.5, 0.0, 0.0
    for row, loss in enumerate(losses, start=1):
        square += (loss - foreseen) ** 2
        total += loss
        foreseen = (0.5 + total) / (1 + row)
    assert (sums[-1], squares[-1]) == (pytest.approx(total), pytest.approx(square))
    low = float(lower_bound(np.array(total), np.array(square), np.array(300.0), 0.05))
    assert 0.15 < low < 0.2
    rates = np.geomspace(0.002, 0.95, 32)
    terms = rates * (total - 300 * low) + (np.log1p(-rates) + rates) * square
    assert logsumexp(terms) - np.log(32) == pytest.approx(np.log(20), abs=1e-6)
    assert lower_bound(np.array(0.0), np.array(0.1), np.array(5.0), 0.05) == pytest.approx(0.0, abs=1e-11)


@pytest.mark.parametrize("kind", ["steady", "moving", "against the past"])
def test_the_bound_lies_below_the_running_risk_at_all_times(kind):
    """1,000 streams of 300 rows, delta 20 %, false alarm 1e-4; the risk may answer to what came before."""
    generator, streams, rows = np.random.default_rng(6), 1000, 300
    risk, losses = np.empty((streams, rows)), np.empty((streams, rows))
    for row in range(rows):
        risk[:, row] = {
            "steady": 0.3,
            "moving": 0.5 + 0.45 * np.sin(row / 15),
            "against the past": np.where(losses[:, :row].mean(1) > 0.3, 0.1, 0.6) if row else 0.3,
        }[kind]
        losses[:, row] = generator.random(streams) < risk[:, row]
    mean = risk.cumsum(1) / np.arange(1, rows + 1)
    sums, squares = moments(0.0, 0, losses)
    above = (log_evidence(sums, squares, np.arange(1, rows + 1), mean) >= np.log(5)).any(1).sum()
    assert stats.binom.sf(above - 1, streams, 0.2) > FALSE_ALARM, above / streams


def test_its_terms_are_supermartingales_over_all_outcomes_of_ten_rows():
    outcomes = np.array(list(product([0.0, 1.0], repeat=10)))
    chance = (0.2**outcomes * 0.8 ** (1 - outcomes)).prod(-1)
    sums, squares = moments(0.0, 0, outcomes)
    evidence = np.exp(log_evidence(sums, squares, np.arange(1, 11), np.full(10, 0.2)))
    assert (chance @ evidence <= 1 + 1e-12).all()


# ---- of a certificate


@pytest.fixture(scope="module")
def certified(certify):
    return certify(path=PATH)


def scores(values, counted=None):
    values = np.asarray(values, dtype=np.float64)
    return Scores(values, np.ones(len(values), dtype=bool) if counted is None else np.asarray(counted))


def rows_like(x, y, count, seed):
    """Rows that are no one else's: pixels by a thousandth brighter or darker."""
    generator = torch.Generator().manual_seed(seed)
    some = torch.randint(len(x), (count,), generator=generator)
    return x[some] + 1e-3 * torch.randn(x[some].shape, generator=generator), y[some]


def test_it_watches_the_certified_network(certified, digits):
    x, y = digits[1]
    first = Monitor.of(certified.certificate)
    assert (first.rows, first.e_value, first.p_value, first.expired) == (0, pytest.approx(1.0), 1.0, False)
    assert "no row counted yet" in str(first)
    good = first.watch(certified.network, rows_like(x, y, 600, 0))
    risk = good.running_risks[0]
    assert not good.expired and good.rows == 600 and risk < 0.08 and good.lower_bounds[0] < risk
    x_new, y_new = rows_like(x, y, 400, 1)
    wrong = torch.rand(400, generator=torch.Generator().manual_seed(2)) < 0.3
    bad = good.watch(certified.network, (x_new, torch.where(wrong, (y_new + 1) % 10, y_new)))
    assert bad.expired and 600 < bad.expired_at < 900 and bad.p_value <= 0.05
    assert f"expired at row {bad.expired_at} of 1,000" in str(bad) and "error ≤ 8 %" in str(bad)
    later = bad.watch(certified.network, rows_like(x, y, 900, 3))
    assert later.expired_at == bad.expired_at  # for good


def test_any_cut_into_batches_gives_the_same(certified):
    losses = (np.random.default_rng(7).random(900) < 0.16).astype(float)
    whole = Monitor.of(certified.certificate).observe(scores(losses))
    parts = Monitor.of(certified.certificate)
    for some in np.split(losses, [1, 2, 300, 300, 700]):
        parts = parts.observe(scores(some))
    assert whole.expired_at == parts.expired_at is not None
    assert parts.risks[0].log_capital == pytest.approx(whole.risks[0].log_capital, rel=1e-9)
    assert parts.highest == pytest.approx(whole.highest) and parts.lower_bounds == pytest.approx(
        whole.lower_bounds
    )
    brute = wealth_of(losses, 0.08)
    assert whole.e_value == pytest.approx(brute[-1]) and whole.expired_at == int(np.argmax(brute >= 20)) + 1


def test_a_state_that_was_kept_goes_on(certified, tmp_path):
    losses = (np.random.default_rng(8).random(500) < 0.16).astype(float)
    half = Monitor.of(certified.certificate, 0.01).observe(scores(losses[:200]))
    half.write(tmp_path / "monitor.json")
    assert Monitor.read(tmp_path / "monitor.json", certified.certificate) == half
    again = Monitor.read(tmp_path / "monitor.json").observe(scores(losses[200:]))
    assert again == half.observe(scores(losses[200:]))
    record = read_state(tmp_path / "monitor.json", FORMAT, MONITOR)
    for change, message in [
        ({"rows": 10}, "200 rows of 10"),
        ({"expired_at": 900}, "expired_at is 900, of 200 rows"),
        ({"delta": 0}, "delta is 0"),
        ({"more": 1}, "more is unknown"),
        ({"risks": []}, "risks is"),
        ({"risks": [{**record["risks"][0], "log_capital": [0.0]}]}, "1 stakes"),
        ({"risks": [{**record["risks"][0], "total": 900}]}, "It was changed"),
    ]:
        write_state(tmp_path / "changed.json", FORMAT, {**record, **change})
        with pytest.raises(CertificateError, match=message):
            Monitor.read(tmp_path / "changed.json")
    text = (tmp_path / "monitor.json").read_text().replace('"total": ', '"total": 1')
    (tmp_path / "changed.json").write_text(text)
    with pytest.raises(CertificateError, match="changed after it was written"):
        Monitor.read(tmp_path / "changed.json")
    other = Certificate({**certified.certificate.record, "path_name": "another"})
    with pytest.raises(CertificateError, match="is the state of another certificate"):
        Monitor.read(tmp_path / "monitor.json", other)


def test_what_is_not_new_or_not_certified_is_refused(certified, network, digits):
    x, y = digits[1]
    start = Monitor.of(certified.certificate)
    with pytest.raises(CertificateError, match="These are the calibration rows"):
        start.watch(certified.network, (x, y))
    seen = start.watch(certified.network, (x[:100], y[:100]))
    with pytest.raises(CertificateError, match="counted already"):
        seen.watch(certified.network, (x[:100], y[:100]))
    with pytest.raises(CertificateError, match="not the one that was certified"):
        start.watch(network, (x[:100], y[:100]))
    with pytest.raises(CertificateError, match="needs labels"):
        start.watch(certified.network, x[:100])
    with pytest.raises(CertificateError, match=r"outside of \[0, 1\]"):
        start.observe(scores([0.0, 2.0]))
    with pytest.raises(CertificateError, match="are of 2 risks, and 1 are watched"):
        start.observe(several_scores([scores([0.0]), scores([0.0])]))


def test_levels_that_are_none_are_refused(certified, certify):
    for settings, message in [
        ({"delta": 0.0}, "delta=0.0 must lie between 0 and 1"),
        ({"delta": True}, "delta=True must lie between 0 and 1"),
        ({"tolerance": -0.1}, "tolerance=-0.1: give at least 0"),
        ({"tolerance": 0.93}, "tolerance=0.93: give at least 0"),
    ]:
        with pytest.raises(CertificateError, match=message):
            Monitor.of(certified.certificate, **settings)
    with pytest.raises(CertificateError, match="certifies no network"):
        Monitor.of(certify(alpha=0.01, path=PATH).certificate)


def test_what_is_tolerated_raises_the_level(certified):
    losses = (np.random.default_rng(9).random(800) < 0.16).astype(float)
    strict = Monitor.of(certified.certificate).observe(scores(losses))
    kind = Monitor.of(certified.certificate, tolerance=0.08).observe(scores(losses))
    assert strict.expired and not kind.expired and "error ≤ 16 %" in str(kind)


def test_of_several_risks_the_mean_of_the_capitals_is_bet(certify, network, digits):
    x, y = digits[1]
    found = certify(path=PATH, loss=["error", "disagreement"], alpha=[0.1, 0.05])
    start = Monitor.of(found.certificate)
    first, second = (np.random.default_rng(10).random((2, 700)) < np.array([[0.05], [0.15]])).astype(float)
    after = start.observe(several_scores([scores(first), scores(second)]))
    mean = (wealth_of(first, 0.1) + wealth_of(second, 0.05)) / 2
    assert after.e_value == pytest.approx(mean[-1]) and after.expired_at == int(np.argmax(mean >= 20)) + 1
    assert len(after.running_risks) == 2 and "disagreement ≤ 5 %" in str(after)
    new = rows_like(x, y, 300, 0)
    assert not start.watch(found.network, new, reference=network).expired
    with pytest.raises(CertificateError, match="compares with the network that was pruned"):
        start.watch(found.network, new)
    with pytest.raises(CertificateError, match="reference network is not the one"):
        start.watch(found.network, new, reference=found.network)


def test_rows_that_do_not_count_leave_the_capital_as_it_is(certify, digits):
    found = certify(path=PATH, loss=each_class(10), alpha=0.3)
    losses = (np.random.default_rng(11).random(200) < 0.9).astype(float)
    counted = np.random.default_rng(12).random(200) < 0.3
    parts = [scores(losses, counted), *[scores(losses, np.zeros(200, bool))] * 9]
    after = Monitor.of(found.certificate).observe(several_scores(parts))
    alone = wealth_of(losses[counted], 0.3)
    assert after.e_value == pytest.approx((alone[-1] + 9) / 10)
    place = int(np.argmax((alone + 9) / 10 >= 20))
    assert after.expired_at == int(np.flatnonzero(counted)[place]) + 1
    assert after.risks[3].rows == 0 and np.isnan(after.running_risks[3])
    x, y = digits[1]
    few = Monitor.of(found.certificate).watch(found.network, (x[:5], y[:5]))  # not of every class
    assert sum(risk.rows for risk in few.risks) == 5


def test_excess_and_selective_losses_are_told_as_they_are(certify, digits, network):
    x, y = digits[1]
    for loss, risk in ((ExcessError(), 0.1), (Selective(0.8), 0.1)):
        found = certify(path=PATH, loss=loss, alpha=risk)
        after = Monitor.of(found.certificate).watch(found.network, rows_like(x, y, 400, 5), reference=network)
        expected = found.certificate.chosen["risk"]
        assert after.running_risks[0] == pytest.approx(expected, abs=0.05) and after.rows == 400
        assert after.lower_bounds[0] < after.running_risks[0]


def test_a_loss_of_ones_own_is_given_again(certify, digits):
    x, y = digits[1]
    own = OwnLoss(lambda o, t: (o.argmax(1) != t).float() / 2, "half an error")
    found = certify(path=PATH, loss=own, alpha=0.1)
    start = Monitor.of(found.certificate)
    after = start.watch(found.network, (x[:200], y[:200]), loss=own)
    assert 0 <= after.running_risks[0] <= 0.5 and "half an error" in str(after)
    with pytest.raises(CertificateError, match="somebody's own"):
        start.watch(found.network, (x[:200], y[:200]))
    assert Error().level(0.1) == 0.1
