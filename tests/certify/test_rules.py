"""Rules: what they certify, and that any false certificate is rare on paths whose risks are known."""

import numpy as np
import pytest
from scipy import stats

from bayesprune.certify.pvalues import Betting, Binomial, HoeffdingBentkus
from bayesprune.certify.rules import (
    Bonferroni,
    FixedSequence,
    MultiStart,
    SplitFixedSequence,
    level_at,
    rule_from,
)  # fmt: skip
from bayesprune.errors import CertificateError

RULES = [
    FixedSequence(), SplitFixedSequence(), SplitFixedSequence(0.3, seed=5), Bonferroni(),
    MultiStart(3), MultiStart((0, 2), (3, 1)),
]  # fmt: skip
ALPHA, DELTA, ROWS, CALIBRATIONS, FALSE_ALARM = 0.1, 0.1, 200, 1500, 1e-4
RISING = np.array([0.02, 0.05, 0.08, 0.1, 0.1, 0.12, 0.3])  # 0.1 is the edge: it counts as too high
BUMPY = np.array([0.03, 0.1, 0.04, 0.1, 0.02, 0.11])


def simulated(risks, rule, p_value, nested, seed):
    """Share of calibrations in which any candidate of a risk of alpha or more is certified."""
    generator, false = np.random.default_rng(seed), 0
    for _ in range(CALIBRATIONS):
        shape = (1, ROWS) if nested else (len(risks), ROWS)  # nested: who errs on a row errs from there on
        losses = (generator.random(shape) < risks[:, None]).astype(float)
        decision = rule.decide(lambda rows, it=losses: p_value(it[:, rows], ALPHA), len(risks), ROWS, DELTA)
        false += bool((decision.certified & (risks >= ALPHA)).any())
    return false


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("risks", [RISING, BUMPY], ids=["rising", "bumpy"])
@pytest.mark.parametrize("nested", [True, False], ids=["nested", "independent"])
def test_a_false_certificate_is_as_rare_as_promised(rule, risks, nested):
    """1,500 calibrations, each test at a false-alarm rate of 1e-4."""
    false = simulated(risks, rule, Binomial(), nested, seed=0)
    assert stats.binom.sf(false - 1, CALIBRATIONS, DELTA) > FALSE_ALARM, false / CALIBRATIONS


@pytest.mark.parametrize("p_value", [HoeffdingBentkus(), Betting(DELTA)], ids=str)
def test_with_other_p_values_too(p_value):
    false = simulated(RISING, FixedSequence(), p_value, True, seed=1)
    assert stats.binom.sf(false - 1, CALIBRATIONS, DELTA) > FALSE_ALARM, false / CALIBRATIONS


def test_testing_each_at_delta_without_a_rule_would_be_found():
    class Careless(Bonferroni):
        def level(self, candidates, delta):
            return delta

    false = simulated(np.full(7, ALPHA), Careless(), Binomial(), False, seed=2)
    assert stats.binom.sf(false - 1, CALIBRATIONS, DELTA) < FALSE_ALARM


def test_the_fixed_sequence_stops_at_a_bump_and_the_split_one_does_not():
    generator = np.random.default_rng(3)
    losses = (generator.random((6, 2000)) < BUMPY[:, None]).astype(float)
    found = {
        rule.name: rule.decide(lambda rows: Binomial()(losses[:, rows], ALPHA), 6, 2000, DELTA)
        for rule in (FixedSequence(), SplitFixedSequence(), Bonferroni())
    }
    assert found["fixed-sequence"].certified.tolist() == [True, *[False] * 5]
    for name in ("split-fixed-sequence", "bonferroni"):
        assert found[name].certified.tolist() == [True, False, True, False, True, False]
    assert len(found["split-fixed-sequence"].rows) == 1000


def test_the_split_orders_and_tests_on_different_rows():
    seen = []
    SplitFixedSequence(0.25).decide(lambda rows: seen.append(rows) or np.zeros(2), 2, 100, 0.05)
    ordering, testing = seen
    assert len(ordering) == 25 and sorted([*ordering, *testing]) == list(range(100))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_decision_says_by_what_it_was_taken(rule):
    """Every field of it: p-values, order and rows are those that the tests were made with."""
    on = {}

    def tests(rows):
        on["rows"], on["p"] = rows, np.array([0.01, 0.3, 0.02, 0.001]) + 1e-4 * len(rows)
        return on["p"]

    decision = rule.decide(tests, 4, 10, 0.05)
    assert decision.p_values is on["p"]
    assert decision.order.tolist() == ([3, 0, 2, 1] if rule.orders else [0, 1, 2, 3])
    assert decision.rows.tolist() == on["rows"].tolist()
    assert len(decision.rows) == rule.tested_rows(10)
    expected = rule.certified(decision.p_values, decision.order, 0.05)
    assert decision.certified.tolist() == expected.tolist() and 0 < expected.sum() < 4


def test_a_p_value_of_exactly_the_level_is_certified():
    p, order = np.array([0.25, 0.2500001, 0.25]), np.array([2, 0, 1])
    assert FixedSequence().certified(p, order, 0.25).tolist() == [True, False, True]
    assert SplitFixedSequence().certified(p, order, 0.25).tolist() == [True, False, True]
    assert Bonferroni().certified(p, order, 0.75).tolist() == [True, False, True]


def test_candidates_that_are_alike_are_tested_in_the_paths_order():
    p = np.tile([0.02, 0.01], 25)
    order = SplitFixedSequence().decide(lambda rows: p, 50, 10, 0.05).order
    assert order.tolist() == [*range(1, 50, 2), *range(0, 50, 2)]


def test_the_split_is_that_of_its_seed():
    def rows(seed):
        return SplitFixedSequence(0.3, seed).decide(lambda rows: np.zeros(2), 2, 40, 0.05).rows.tolist()

    assert rows(1) == rows(1) != rows(2)
    assert rows(1) == sorted(np.random.default_rng(1).permutation(40)[12:])


def test_what_is_no_rule_is_refused():
    class Own:
        def decide(self, tests, candidates, rows, delta):
            raise NotImplementedError

    own = Own()
    assert rule_from(own) is own
    names = "fixed-sequence, split-fixed-sequence, multi-start, bonferroni"
    for wrong, message in [
        (7, f"rule=7: give one of {names}, or a rule of bayesprune.certify.rules."),
        ("holm", f"rule='holm': there is none of that name. Choose one of {names}."),
        ({"share": 0.3}, f"rule='None': there is none of that name. Choose one of {names}."),
    ]:
        with pytest.raises(CertificateError) as refused:
            rule_from(wrong)
        assert str(refused.value) == message


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.1, float("nan")])
def test_a_split_needs_rows_on_both_sides(share):
    with pytest.raises(CertificateError) as refused:
        SplitFixedSequence(share=share)
    assert str(refused.value) == (
        f"SplitFixedSequence(share={share!r}): the share of rows that choose the order must lie between 0 "
        "and 1, as 0.5."
    )


def test_levels_rows_and_names():
    assert Bonferroni().level(50, 0.05) == pytest.approx(0.001)
    assert FixedSequence().level(50, 0.05) == 0.05 and SplitFixedSequence().tested_rows(101) == 51
    for rule in RULES:
        assert rule_from(rule.to_json()) == rule
    with pytest.raises(CertificateError, match=r"^rule 'bonferroni': its settings cannot be used \(.*'m'"):
        rule_from({"name": "bonferroni", "m": 3})


def starts_by_hand(p_values, starts, weights, delta):
    """Every start walks by itself; a walk takes along the share of each start that it comes to."""
    share = dict(zip(starts, np.array(weights) / np.sum(weights) * delta, strict=True))
    found = np.zeros(len(p_values), dtype=bool)
    for first in starts:
        level = 0.0
        for place in range(first, len(p_values)):
            level += share.get(place, 0.0)
            if p_values[place] > level:
                break
            found[place] = True
    return found


def test_several_starts_are_walks_whose_shares_add_up():
    generator = np.random.default_rng(4)
    for _ in range(500):
        count = int(generator.integers(3, 12))
        starts = sorted(
            generator.choice(count, size=int(generator.integers(1, count)), replace=False).tolist()
        )
        weights = generator.random(len(starts)).tolist()
        p = 0.2 * generator.random(count) ** 2
        found = MultiStart(starts, weights).certified(p, np.arange(count), 0.1)
        assert found.tolist() == starts_by_hand(p, starts, weights, 0.1).tolist()


def test_one_start_is_the_fixed_sequence_and_every_one_no_less_than_bonferroni():
    generator = np.random.default_rng(5)
    for _ in range(300):
        p = 0.1 * generator.random(7) ** 3
        order, sequence = np.arange(7), FixedSequence()
        assert MultiStart(1).certified(p, order, 0.05).tolist() == sequence.certified(p, order, 0.05).tolist()
        assert (MultiStart(7).certified(p, order, 0.05) >= Bonferroni().certified(p, order, 0.05)).all()


def test_several_starts_go_on_after_a_bump_where_the_fixed_sequence_stops():
    p = np.array([0.001, 0.001, 0.3, 0.002, 0.02, 0.04])
    assert FixedSequence().certified(p, np.arange(6), 0.05).tolist() == [True, True, *[False] * 4]
    assert MultiStart(2).certified(p, np.arange(6), 0.05).tolist() == [True, True, False, True, True, False]
    p[2] = 0.001  # no bump: all of delta is together again at the last start
    assert MultiStart(2).certified(p, np.arange(6), 0.05).all()
    assert MultiStart(2).levels(p, np.arange(6), 0.05).tolist() == [0.025] * 3 + [0.05] * 3


@pytest.mark.parametrize("rule", [MultiStart(3), MultiStart((0, 1, 2, 3, 4, 5, 6))], ids=str)
def test_the_error_rate_is_used_up_where_every_risk_is_at_the_edge(rule):
    """p-values that are independent and uniform: between 1 - (1 - d/k)^k and delta, false alarm 1e-4."""
    p = np.random.default_rng(6).random((4000, 7))
    false = sum(bool(rule.certified(row, np.arange(7), DELTA).any()) for row in p)
    starts = len(rule.places(7))
    least = 1 - (1 - DELTA / starts) ** starts
    assert stats.binom.sf(false - 1, 4000, DELTA) > FALSE_ALARM
    assert stats.binom.cdf(false, 4000, least) > FALSE_ALARM


def test_starts_that_keep_their_share_after_a_failure_would_be_found():
    """Shares that add up without asking whether what is behind was certified: too many at the edge."""
    p = np.random.default_rng(7).random((4000, 7))
    levels = np.cumsum(DELTA * MultiStart(7).shares(7))
    false = int((p <= levels).any(1).sum())
    assert stats.binom.sf(false - 1, 4000, DELTA) < FALSE_ALARM


def test_before_the_first_start_nothing_is_certified_not_even_at_a_p_value_of_zero():
    rule = MultiStart([2])
    assert rule.certified(np.zeros(4), np.arange(4), 0.05).tolist() == [False, False, True, True]
    assert rule.places(4) == [2] and MultiStart(3).places(7) == [0, 2, 4]
    assert [level_at(rule, i, np.zeros(4), np.arange(4), 0.05) for i in (1, 2)] == [0.0, 0.05]
    assert level_at(Bonferroni(), 1, np.zeros(4), np.arange(4), 0.05) == 0.0125


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"starts": 0}, "starts=0: give at least 1"),
        ({"starts": [3, 3]}, "positions that rise"),
        ({"starts": [-1, 2]}, "positions that rise"),
        ({"starts": "many"}, "positions that rise"),
        ({"starts": []}, "positions that rise"),
        ({"starts": 2, "weights": [1.0]}, "1 weights for 2 starts"),
        ({"starts": 2, "weights": [1.0, 0.0]}, "give positive numbers"),
        ({"starts": 2, "weights": [1.0, float("inf")]}, "give positive numbers"),
        ({"starts": 2, "weights": 3}, "give positive numbers"),
    ],
)
def test_starts_that_are_none_are_refused(settings, message):
    with pytest.raises(CertificateError, match=message):
        MultiStart(**settings)


def test_starts_beyond_the_path_are_refused():
    for rule, message in [
        (MultiStart(5), "the path has 4 candidates. Give so many starts at most"),
        (MultiStart([0, 4]), "a start at 4 is beyond the path, whose 4 candidates"),
    ]:
        with pytest.raises(CertificateError, match=message):
            rule.decide(lambda rows: np.zeros(4), 4, 10, 0.05)
