"""Plots of units show each unit's inclusion probability, each fit's count, each draw's cost."""

from itertools import pairwise

import arviz
import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure
from torch import nn

import bayesprune as bp
from bayesprune.errors import PosteriorError
from bayesprune.posterior import arviz as adapter
from bayesprune.posterior.arviz import unwrap, wrap
from bayesprune.posterior.plots import draws as room
from bayesprune.posterior.plots.figures import cut


def theta_of(fit):
    return {name: v.detach().numpy() for name, v in fit.gated.by_group(fit.gated.inclusion_prob()).items()}


def test_inclusion_has_a_strip_a_fit_in_each_group(fits, draws):
    for source in (fits, draws):
        ax = bp.plots.plot_inclusion(source)
        expected = [np.sort(theta_of(fit)[name])[::-1] for name in ("input", "0") for fit in fits]
        assert len(ax.images) == 6
        for image, values in zip(ax.images, expected, strict=True):
            assert image.get_array()[0].tolist() == pytest.approx(values.tolist(), abs=1e-6)
            left, right, bottom, top = image.get_extent()
            assert (left, right) == (0, 100) and bottom > top  # all of the width, and below each other
        assert "%" in ax.get_xlabel()
    one = bp.plots.plot_inclusion(fits[0])
    counts = [label.get_text() for label in one.child_axes[0].get_yticklabels()]
    assert counts[0].startswith(f"{int((theta_of(fits[0])['input'] > 0.5).sum())} of 6")


def test_undecided_units_are_counted():
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.3))
    likelihood = bp.Categorical(rows=9)
    gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=likelihood, initial_inclusion=0.5)
    labels = bp.plots.plot_inclusion(gated).child_axes[0].get_yticklabels()
    assert [label.get_text().split(", ")[1] for label in labels] == ["4 undecided", "3 undecided"]


def test_seeds_have_a_mark_a_fit_in_each_group(fits):
    ax = bp.plots.plot_seeds(fits, labels=["x", "y", "z"])
    marks = [line for line in ax.lines if line.get_linestyle() == "None"]
    for fit, line, name in zip(fits, marks, "xyz", strict=True):
        kept = [100 * (theta_of(fit)[group] > 0.5).mean() for group in ("input", "0")]
        assert line.get_xdata().tolist() == pytest.approx(kept) and line.get_label() == name
    looks = {(line.get_color(), line.get_marker()) for line in marks}
    assert len(looks) == 3 and len({m for _, m in looks}) == 3  # colour is never alone
    assert ax.get_xlim()[0] < 0 and ax.get_xlim()[1] > 100


def test_inputs_of_several_fits_are_the_share_that_keeps_them(fits):
    ax = bp.plots.plot_inputs(fits, (2, 3))
    kept = np.stack([theta_of(fit)["input"] > 0.5 for fit in fits]).mean(0)
    assert ax.images[0].get_array().reshape(-1).tolist() == pytest.approx(kept.tolist())
    one = bp.plots.plot_inputs(fits[0], (2, 1, 3))  # two channels: their mean
    assert one.images[0].get_array()[0].tolist() == pytest.approx(
        theta_of(fits[0])["input"].reshape(2, 3).mean(0).tolist()
    )
    assert bp.plots.plot_inputs(fits[0]).images[0].get_array().shape == (1, 6)  # no square: a strip
    with pytest.raises(PosteriorError, match=r"shape=\(4, 4\) has 16 inputs, and the network has 6"):
        bp.plots.plot_inputs(fits[0], (4, 4))


def test_draws_are_arvizs_forest_of_their_costs(fits, draws):
    ax = bp.plots.plot_draws(draws)
    stats = unwrap(draws)["sample_stats"]
    dense = fits[0].gated.dense_macs, fits[0].gated.dense_parameters
    costs = zip(("macs", "parameters"), dense, strict=True)
    medians = np.stack([100 * stats[cost].median("draw") / all_of_it for cost, all_of_it in costs])
    if adapter.TAKES_AXES:
        drawn = [float(line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata()) == 1]
        names = {text.get_text() for text in ax.get_yticklabels()}
        assert names >= {"fit 0: MACs", "fit 2: parameters"}
    else:
        drawn = [float(mark.get_offsets()[0][0]) for mark in ax.collections if len(mark.get_offsets()) == 1]
        assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == ["fit 0", "fit 1", "fit 2"]
    assert sorted(drawn) == pytest.approx(sorted(medians.reshape(-1).tolist()))
    assert "% of dense" in ax.get_xlabel()
    with pytest.raises(PosteriorError, match="group 'sample_stats'"):
        bp.plots.plot_draws(fits)


def test_arviz_1_takes_no_axes_and_gets_trees(draws, monkeypatch):
    """Its plot_forest returns a collection of axes by variable and column."""
    given, ax = [], Figure().add_subplot()

    class Collection:
        def add_legend(self, dim, **style):
            given.append(dim)

        def get_target(self, name, selection):
            return xr.DataArray(np.array([None, ax]), dims="column", coords={"column": ["labels", "forest"]})

    def plot_forest(trees, combined, backend, figure_kwargs):
        given.append(trees)
        return Collection()

    monkeypatch.setattr(arviz, "plot_forest", plot_forest)
    monkeypatch.setattr(adapter, "TAKES_AXES", False)
    monkeypatch.setattr(room, "TAKES_AXES", False)
    assert bp.plots.plot_draws(draws) is ax
    assert list(given[0]) == ["fit 0", "fit 1", "fit 2"] and given[1] == "model"
    assert set(given[0]["fit 0"]) == {"posterior"}
    with pytest.raises(PosteriorError, match="leave out ax="):
        bp.plots.plot_draws(draws, ax=ax)


def test_other_sources_are_refused(fits, draws):
    for given, message in (
        ({}, "dict holds no posterior"), (3, "int holds no posterior"),
        (xr.DataTree.from_dict({"/posterior": xr.Dataset({"mu": np.zeros(())})}), "not by bayesprune"),
    ):  # fmt: skip
        with pytest.raises(PosteriorError, match=message):
            bp.plots.plot_inclusion(given)
    with pytest.raises(PosteriorError, match="2 names for 3 fits"):
        bp.plots.plot_seeds(fits, labels=["a", "b"])
    several = bp.plots.plot_seeds([draws, draws])  # containers are joined
    assert len([line for line in several.lines if line.get_linestyle() == "None"]) == 6


@pytest.mark.skipif(not adapter.TAKES_AXES, reason="ArviZ 1.x has no InferenceData")
def test_a_tree_and_inference_data_are_drawn_alike(draws):
    groups = unwrap(draws)
    one, other = (bp.plots.plot_inclusion(wrap(groups, tree=tree)) for tree in (False, True))
    for a, b in zip(one.images, other.images, strict=True):
        assert (a.get_array() == b.get_array()).all()


def test_many_groups_and_long_odd_names_stay_readable(draws):
    """Sixty groups of a transformer; names are shortened, and '$' starts no formula."""
    groups = unwrap(draws)
    posterior = groups["posterior"]
    for number in range(60):
        name = f"encoder$layers$encoder_layer_{number}_mlp"
        values = posterior["inclusion_prob/0"].rename({"0_unit": f"{name}_unit"})
        posterior[f"inclusion_prob/{name}"] = values
    container = wrap({"posterior": posterior, "constant_data": groups["constant_data"]})
    for plot in (bp.plots.plot_inclusion, bp.plots.plot_seeds):
        ax = plot(container)
        assert len(ax.get_yticklabels()) == 62
        ax.figure.canvas.draw()  # warnings are errors
        assert ax.figure.get_size_inches()[1] > 10
        boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
        assert all(a.y0 >= b.y1 - 1 for a, b in pairwise(boxes))  # none on another
    assert len(cut("encoder_layers_encoder_layer_11_self_attention")) <= 24
