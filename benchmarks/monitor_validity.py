"""What comes after a certificate: are its watchers as rarely wrong as they say, and how soon do they see?

Parts of ``python benchmarks/certificate_validity.py``: ``several`` (several risks at once), ``starts``
(several starts of the fixed sequence), ``exchangeable`` (are today's rows like those of the calibration?),
``monitor`` (has the certificate expired?). A count of false alarms that would come up with a probability
below 1e-4 at the rate that is declared is called a violation. Where the answer is no, a tenth of the
simulations tell how often, and how soon, it is found.
"""

import itertools

import numpy as np
from scipy import stats
from tqdm import tqdm

from bayesprune.certify.monitor import Martingale, permutation_test
from bayesprune.certify.monitor.bets import advance, first_capital, log_wealth
from bayesprune.certify.monitor.running import log_evidence, moments
from bayesprune.certify.pvalues import Betting, Binomial, HoeffdingBentkus
from bayesprune.certify.rules import Bonferroni, FixedSequence, MultiStart, SplitFixedSequence

DELTA, FALSE_ALARM, CHUNK = 0.1, 1e-4, 50
STREAM, MONITOR_DELTA = 1000, 0.05
LEVELS = (0.02, 0.05)
TEST_ROWS = (200, 100)  # of the calibration, and of today
PERMUTATIONS = 99
MARTINGALE_ROWS = (50, 100)


def verdict(count, trials, rate):
    tail = float(stats.binom.sf(count - 1, trials, rate))
    return {"false": count / trials, "tail_probability": tail, "valid": tail > FALSE_ALARM}


class Apart(MultiStart):
    """Starts whose shares do not add up where they meet: as Learn then Test has them."""

    name = "starts apart"

    def certified(self, p_values, order, delta):
        passed = np.zeros(len(p_values), dtype=bool)
        for place, share in enumerate(self.shares(len(p_values))):
            if share:
                passed[place:] |= np.logical_and.accumulate(p_values[place:] <= share * delta)
        return passed


def starts(calibrations, rows=1000, alpha=0.05):
    """Rules on paths of 24 candidates of known risks: one that rises, some with bumps, all at the edge."""
    rising = np.linspace(0.01, 0.09, 24)
    one, three = rising.copy(), rising.copy()
    one[5] = 0.055
    three[[3, 8, 13]] = 0.055
    late = np.concatenate([[0.052], np.linspace(0.01, 0.09, 23)])
    paths = {
        "rising": rising,
        "one bump": one,
        "three bumps": three,
        "bump at the first": late,
        "all at alpha": np.full(24, alpha),
    }
    rules = [
        FixedSequence(),
        MultiStart(2),
        MultiStart(4),
        MultiStart(8),
        MultiStart(4, (3, 1, 1, 1)),
        Apart(4),
        SplitFixedSequence(),
        Bonferroni(),
    ]
    names = {id(rule): str(rule) for rule in rules}
    table = []
    for (name, risks), nested in tqdm(list(itertools.product(paths.items(), (True, False))), desc="starts"):
        generator, null = np.random.default_rng(31), risks >= alpha
        found = {id(rule): {"false": 0, "best": 0.0, "none": 0} for rule in rules}
        for start in range(0, calibrations, CHUNK):
            count = min(CHUNK, calibrations - start)
            uniform = generator.random((count, 1 if nested else len(risks), rows))
            wrong = uniform < risks[:, None]
            every = Binomial()(wrong, alpha)
            for number, rule in itertools.product(range(count), rules):
                if rule.orders:  # it tests on some of the rows
                    passed = rule.decide(
                        lambda some: Binomial()(wrong[number][:, some], alpha),  # noqa: B023
                        len(risks),
                        rows,
                        DELTA,
                    ).certified
                else:
                    passed = rule.certified(every[number], np.arange(len(risks)), DELTA)
                kept = found[id(rule)]
                kept["false"] += bool((passed & null).any())
                kept["none"] += not passed.any()
                kept["best"] += int(np.flatnonzero(passed)[-1]) if passed.any() else 0
        for rule in rules:
            kept = found[id(rule)]
            table.append(
                {
                    "path": name,
                    "dependence": "nested" if nested else "independent",
                    "rule": names[id(rule)],
                    **verdict(kept["false"], calibrations, DELTA),
                    "none": kept["none"] / calibrations,
                    "last_certified": kept["best"] / calibrations,
                    "last_below_alpha": int(np.flatnonzero(~null)[-1]) if (~null).any() else None,
                }
            )
    return table


def several(calibrations, rows=400):
    """Two risks, or one of each of three classes: candidates on which one, or each, is at its level."""
    good, bad = (0.02, 0.01), (0.08, 0.04)
    kinds = {
        "error and disagreement, the first at its level": [(bad[0], good[1])],
        "error and disagreement, the second at its level": [(good[0], bad[1])],
        "error and disagreement, both at their levels": [bad],
        "a path: neither, neither, one, the other, both": [
            good,
            good,
            (good[0], bad[1]),
            (bad[0], good[1]),
            bad,
        ],
    }
    table = []
    for (name, path), nested in itertools.product(kinds.items(), (True, False)):
        generator, null = (
            np.random.default_rng(37),
            np.array([r[0] >= bad[0] or r[1] >= bad[1] for r in path]),
        )
        tests = [Binomial(), HoeffdingBentkus(), Betting(DELTA)]
        counts = {(p.name, how): [0, 0.0] for p in tests for how in ("each at delta", "each at delta / 2")}
        for start in range(0, calibrations, 500):
            count = min(500, calibrations - start)
            first = generator.random((count, len(path), rows))
            second = first if nested else generator.random((count, len(path), rows))
            errors = (first < np.array(path)[:, :1]).astype(float)
            others = (second < np.array(path)[:, 1:]).astype(float)
            for p in tests:
                each = np.stack([p(errors, bad[0]), p(others, bad[1])])
                for how, level in (("each at delta", DELTA), ("each at delta / 2", DELTA / 2)):
                    passed = np.logical_and.accumulate(each.max(0) <= level, 1)
                    counts[p.name, how][0] += int((passed & null).any(1).sum())
                    counts[p.name, how][1] += float(passed[:, ~null].sum())
        for (p, how), (false, right) in counts.items():
            least = int((~null).sum())
            table.append(
                {
                    "risks": name,
                    "rows that err": "the same" if nested else "others",
                    "p_value": p,
                    "tested": how,
                    **verdict(false, calibrations, DELTA),
                    "true_certified": right / calibrations / least if least else None,
                }
            )
    for p in (Binomial(), HoeffdingBentkus(), Betting(DELTA)):
        table.append(
            {
                "risks": "a risk of each of three classes, one at its level",
                "rows that err": "others",
                "p_value": p.name,
                "tested": "each at delta",
                **verdict(_classes(p, calibrations, rows), calibrations, DELTA),
                "true_certified": None,
            }
        )
    return table


def _classes(p_value, calibrations, rows, alpha=0.1):
    """The second of three classes has a risk of alpha: how often all three are rejected."""
    generator, false = np.random.default_rng(41), 0
    risks = np.array([0.03, alpha, 0.0])
    for _ in range(calibrations):
        labels = generator.choice(3, rows, p=[0.5, 0.3, 0.2])
        wrong = (generator.random(rows) < risks[labels]).astype(float)
        false += max(float(p_value(wrong[labels == c], alpha)) for c in range(3)) <= DELTA
    return false


def exchangeable(trials):
    """The permutation test and the martingale: rows of one source, and of another."""
    sources = {
        "0/1 losses of risk 3 %": (lambda g, n: (g.random(n) < 0.03).astype(float), "higher"),
        "confidences (Beta(8, 1))": (lambda g, n: g.beta(8, 1, n), "distance"),
    }
    others = {
        "0/1 losses of risk 3 %": ("risk 6 %", lambda g, n: (g.random(n) < 0.06).astype(float)),
        "confidences (Beta(8, 1))": ("Beta(5, 1)", lambda g, n: g.beta(5, 1, n)),
    }
    table, few = [], max(100, trials // 10)
    for name, (draw, statistic) in sources.items():
        changed, other = others[name]
        for what, drawn, count in (("one source", draw, trials), (changed, other, few)):
            generator = np.random.default_rng(43)
            low = sum(
                permutation_test(
                    draw(generator, TEST_ROWS[0]),
                    drawn(generator, TEST_ROWS[1]),
                    statistic=statistic,
                    permutations=PERMUTATIONS,
                    seed=trial,
                ).p_value
                <= 0.05
                for trial in tqdm(range(count), desc=f"permutations, {name}, {what}", mininterval=5)
            )
            found = verdict(low, count, 0.05) if drawn is draw else {"seen": low / count}
            table.append(
                {
                    "test": f"permutations, {statistic}",
                    "scores": name,
                    "today": what,
                    "trials": count,
                    "rate": 0.05,
                    **found,
                }
            )
    table.append(_chosen(trials))
    for name, (draw, _) in sources.items():
        changed, other = others[name]
        for what, drawn, count in (("one source", draw, trials), (changed, other, few)):
            generator, seen = np.random.default_rng(47), []
            for trial in tqdm(range(count), desc=f"martingale, {name}, {what}", mininterval=5):
                state = Martingale.of(draw(generator, MARTINGALE_ROWS[0]), delta=0.05, seed=trial)
                seen.append(state.observe(drawn(generator, MARTINGALE_ROWS[1])).found_at)
            low = [at for at in seen if at is not None]
            found = verdict(len(low), count, 0.05) if drawn is draw else {"seen": len(low) / count}
            rows = {"median_row": float(np.median(low)) if low else None}
            table.append(
                {
                    "test": "martingale",
                    "scores": name,
                    "today": what,
                    "trials": count,
                    "rate": 0.05,
                    **found,
                    **rows,
                }
            )
    return table


def _chosen(trials, alpha=0.05):
    """Losses of a network that the calibration rows chose: why the test is to be asked of another."""
    generator, low = np.random.default_rng(53), 0
    risks = np.linspace(0.01, 0.08, 15)
    for trial in tqdm(range(trials), desc="permutations, of the certified network", mininterval=5):
        before = (generator.random((len(risks), TEST_ROWS[0])) < risks[:, None]).astype(float)
        passed = FixedSequence().certified(Binomial()(before, alpha), np.arange(len(risks)), DELTA)
        best = int(np.flatnonzero(passed)[-1]) if passed.any() else 0
        now = (generator.random(TEST_ROWS[1]) < risks[best]).astype(float)
        test = permutation_test(before[best], now, statistic="higher", permutations=PERMUTATIONS, seed=trial)
        low += test.p_value <= 0.05
    return {
        "test": "permutations, higher",
        "scores": "0/1 losses of the network that the rows chose",
        "today": "one source",
        "trials": trials,
        "rate": 0.05,
        **verdict(low, trials, 0.05),
    }


def _streams():
    """name → (level, (generator, streams) → losses, mean of each row, whether no row's risk is above)."""
    rows = np.arange(STREAM)
    found = {}
    for level in LEVELS:
        waves = level * (0.5 + 0.5 * np.sign(np.sin(rows / 60)))
        for name, risk in (
            ("at alpha", np.full(STREAM, level)),
            ("in turns 0 and alpha", waves),
            ("twice alpha", np.full(STREAM, 2 * level)),
            ("1.5 times alpha", np.full(STREAM, 1.5 * level)),
            ("80 % of alpha for 500 rows, then twice alpha", np.where(rows < 500, 0.8, 2.0) * level),
        ):
            found[f"0/1, alpha {level:.0%}: {name}"] = (
                level,
                lambda g, n, risk=risk: (g.random((n, STREAM)) < risk).astype(float),
                risk,
            )
    for name, share in (("at alpha", 1.0), ("twice alpha", 2.0)):
        mean = 0.05 * share
        found[f"graded (Beta), alpha 5 %: {name}"] = (
            0.05,
            lambda g, n, mean=mean: g.beta(40 * mean, 40 * (1 - mean), (n, STREAM)),
            np.full(STREAM, mean),
        )
    return found


def monitor(trials):
    """Streams of 1,000 rows, looked at after every row."""
    table = []
    for name, (level, draw, risk) in tqdm(_streams().items(), desc="monitor"):
        generator, alarms, above, final = np.random.default_rng(59), [], 0, []
        null = bool((risk <= level).all())
        count = trials if null else max(100, trials // 10)
        mean = np.cumsum(risk) / np.arange(1, STREAM + 1)
        for start in range(0, count, CHUNK):
            losses = draw(generator, min(CHUNK, count - start))
            wealth = log_wealth(advance(first_capital(), 0, losses, level), np.arange(1, STREAM + 1))
            reached = wealth >= -np.log(MONITOR_DELTA)
            alarms += [int(np.argmax(one)) + 1 for one in reached if one.any()]
            sums, squares = moments(0.0, 0, losses)
            seen = np.arange(1, STREAM + 1)
            above += int((log_evidence(sums, squares, seen, mean) >= -np.log(MONITOR_DELTA)).any(1).sum())
            if not null:
                at_level = log_evidence(sums, squares, seen, np.full(STREAM, level))
                final.append(at_level >= -np.log(MONITOR_DELTA))
        first = [int(np.argmax(one)) + 1 for passed in final for one in passed if one.any()]
        bound = verdict(above, count, MONITOR_DELTA)
        found = verdict(len(alarms), count, MONITOR_DELTA) if null else {"seen": len(alarms) / count}
        table.append(
            {
                "stream": name,
                "null": null,
                "trials": count,
                **found,
                "rows_until_seen": {str(q): float(np.quantile(alarms, q)) for q in (0.1, 0.5, 0.9)}
                if alarms
                else None,
                "bound_above_running_risk": bound["false"],
                "bound_valid": bound["valid"],
                "bound_passed_alpha": None if null else len(first) / count,
                "rows_until_passed": float(np.median(first)) if first else None,
            }
        )
    return table


def show(part, table):
    """A line for each row of figures."""
    for row in table:
        print(f"  {part}: " + ", ".join(f"{key} {value}" for key, value in row.items() if value is not None))


PARTS = {"several": several, "starts": starts, "exchangeable": exchangeable, "monitor": monitor}
