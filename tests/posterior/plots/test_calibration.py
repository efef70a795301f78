"""Reliability, coverage and ranks: what is drawn is what was counted, and bands hold what they promise."""

import numpy as np
import pytest
from scipy.stats import norm

import bayesprune as bp
from bayesprune.errors import PosteriorError
from bayesprune.posterior.arviz import unwrap, wrap
from bayesprune.posterior.diagnose.calibrated import rank_edges, rank_uniformity

FALSE_ALARM = 1e-6  # of each randomised test


def test_reliability_is_the_share_of_right_answers_in_each_bin(draws):
    groups = unwrap(draws)
    probs = groups["posterior_predictive"]["mean"].values
    classes = groups["observed_data"]["y"].values
    ax = bp.plots.plot_reliability(draws, bins=5)
    diagonal, *lines = ax.lines
    assert list(diagonal.get_xdata()) == [0, 1] == list(diagonal.get_ydata())
    assert len(lines) == 3
    for fit, line in enumerate(lines):
        confidence, right = probs[fit].max(-1).astype(float), probs[fit].argmax(-1) == classes
        which = np.clip((confidence * 5).astype(int), 0, 4)
        for place, b in enumerate(np.unique(which)):
            assert line.get_xdata()[place] == pytest.approx(confidence[which == b].mean())
            assert line.get_ydata()[place] == pytest.approx(right[which == b].mean())
    assert "confidence" in ax.get_xlabel() and "right" in ax.get_ylabel()


def test_one_fit_has_its_error_and_intervals(draws):
    groups = unwrap(draws)
    one = wrap({n: part.isel(chain=[0]) if "chain" in part.sizes else part for n, part in groups.items()})
    ax = bp.plots.plot_reliability(one)
    expected = bp.diagnose(one).faithful["expected calibration error"]
    assert f"ECE {expected:.3f}" in [text.get_text() for text in ax.get_legend().get_texts()]
    (bars,) = ax.collections
    for bar, share in zip(bars.get_segments(), ax.lines[1].get_ydata(), strict=True):
        assert bar[0][1] - 1e-9 <= share + 0.05 and bar[1][1] >= share - 0.05
        assert 0 <= bar[0][1] < bar[1][1] <= 1


def test_numbers_and_classes_have_plots_of_their_own(draws, regression, fits):
    with pytest.raises(PosteriorError, match=r"take plot_coverage\(\)"):
        bp.plots.plot_reliability(regression)
    with pytest.raises(PosteriorError, match=r"take plot_reliability\(\)"):
        bp.plots.plot_coverage(draws)
    with pytest.raises(PosteriorError, match="rows that were not learnt from"):
        bp.plots.plot_reliability(fits[0])


def known(scale, rows=2000, draws=400):
    """Draws of a predictive normal of a given scale, for standard normal targets."""
    import torch

    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
    gated = bp.gate(network, torch.zeros(1, 2), prior=bp.priors.BernoulliGates(bp.priors.Fixed(0.5)),
                    likelihood=bp.Gaussian(rows=rows))  # fmt: skip
    x, y = torch.zeros(rows, 2), torch.zeros(rows)
    groups = unwrap(gated_draws(gated, draws, x, y))
    generator = np.random.default_rng(0)
    groups["observed_data"]["y"][:] = generator.standard_normal((rows, 1))
    predictive = groups["posterior_predictive"]["y"]
    predictive[:] = scale * generator.standard_normal(predictive.shape)
    return wrap(groups)


def gated_draws(gated, draws, x, y):
    return bp.Posterior.of(gated).to_arviz(draws=draws, prior=0, rows=(x, y), observed=True)


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_coverage_is_that_of_the_normal_that_was_drawn_from(scale):
    """The central interval of N(0, s²) of level p holds 2 Φ(s Φ⁻¹((1 + p)/2)) − 1 of normal targets."""
    ax = bp.plots.plot_coverage(known(scale))
    line = ax.lines[1]
    levels, share = line.get_xdata()[5:96:10], line.get_ydata()[5:96:10]
    exact = 2 * norm.cdf(scale * norm.ppf((1 + levels) / 2)) - 1
    spread = norm.ppf(1 - FALSE_ALARM / (2 * 10)) * 0.5 / 2000**0.5  # over targets, at most
    assert np.abs(share - exact).max() < spread + 3 / 400  # and over the 400 draws
    inside = _in_band(ax, levels, share)
    assert inside.mean() >= 0.8 if scale == 1 else not inside[3:7].any()


def _in_band(ax, levels, share):
    points = ax.collections[0].get_paths()[0].vertices
    low = [points[np.isclose(points[:, 0], level), 1].min() for level in levels]
    high = [points[np.isclose(points[:, 0], level), 1].max() for level in levels]
    return (share >= np.array(low) - 1e-9) & (share <= np.array(high) + 1e-9)


def test_coverage_of_a_fit_counts_its_targets(regression):
    ax = bp.plots.plot_coverage(regression)
    predictive, y = (unwrap(regression)[g]["y"].values for g in ("posterior_predictive", "observed_data"))
    low, high = np.quantile(predictive[0].reshape(200, -1), (0.1, 0.9), axis=0)
    expected = ((y.reshape(-1) >= low) & (y.reshape(-1) <= high)).mean()  # target by target
    place = int(np.argmin(np.abs(ax.lines[1].get_xdata() - 0.8)))
    assert ax.lines[1].get_ydata()[place] == pytest.approx(expected, abs=0.03)
    assert "120 targets" in ax.get_title()


def test_ranks_are_counted_and_uniform_ones_stay_in_the_band():
    ranks = np.random.default_rng(1).integers(0, 100, size=1000)
    ax = bp.plots.plot_ranks(ranks, draws=99)
    heights = [bar.get_height() for bar in ax.patches if hasattr(bar, "get_height")]
    edges = rank_edges(99, 10)
    assert heights == np.histogram(ranks, edges)[0].tolist() and sum(heights) == 1000
    assert f"p = {rank_uniformity(ranks, 99):.2g}" in ax.get_title()
    assert "rank among 99 draws" in ax.get_xlabel() and ax.get_ylabel() == "simulations"
    band = next(patch for patch in ax.patches if not hasattr(patch, "get_height"))
    values, _, baseline = band.get_data()
    assert all(low <= count <= high for low, count, high in zip(baseline, heights, values, strict=True))
    narrow = bp.plots.plot_ranks(np.repeat([0, 99], 500), draws=99)
    assert "p = 0" in narrow.get_title() or float(narrow.get_title().split("= ")[1]) < 1e-6


def test_ranks_out_of_range_are_refused():
    for ranks in ([], [5, -1], [3, 100], [[1, 2]]):
        with pytest.raises(PosteriorError, match="one rank in 0 … 99"):
            bp.plots.plot_ranks(np.array(ranks), draws=99)
