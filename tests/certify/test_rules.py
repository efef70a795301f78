"""Rules: what they certify, and that any false certificate is rare on paths whose risks are known."""

import numpy as np
import pytest
from scipy import stats

from bayesprune.certify.pvalues import Betting, Binomial, HoeffdingBentkus
from bayesprune.certify.rules import Bonferroni, FixedSequence, SplitFixedSequence, rule_from
from bayesprune.errors import CertificateError

RULES = [FixedSequence(), SplitFixedSequence(), SplitFixedSequence(0.3, seed=5), Bonferroni()]
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


def test_levels_rows_and_names():
    assert Bonferroni().level(50, 0.05) == pytest.approx(0.001)
    assert FixedSequence().level(50, 0.05) == 0.05 and SplitFixedSequence().tested_rows(101) == 51
    for rule in RULES:
        assert rule_from(rule.to_json()) == rule
    for wrong in ("holm", {"name": "bonferroni", "m": 3}):
        with pytest.raises(CertificateError, match=r"holm.*bonferroni|'m'"):
            rule_from(wrong)
    with pytest.raises(CertificateError, match="between 0 and 1"):
        SplitFixedSequence(share=1.0)
