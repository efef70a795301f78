"""What happened over the epochs is what the plots show: lines and images hold the histories' own numbers."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import bayesprune as bp
from bayesprune.errors import PosteriorError


def test_the_elbo_has_a_line_a_fit_and_a_dot_where_gates_were_decided(fits, draws):
    for source in (fits, bp.Posterior.of(fits), draws):
        ax = bp.plots.plot_elbo(source)
        lines = [line for line in ax.lines if line.get_linestyle() != "None"]
        assert len(lines) == 3 and ax.get_ylabel() == "ELBO (nats)" and ax.get_xlabel() == "epoch"
        for fit, line in zip(fits, lines, strict=True):
            there = ~np.isnan(line.get_ydata())
            assert line.get_xdata()[there].tolist() == [e.epoch for e in fit.history]
            assert line.get_ydata()[there] == pytest.approx([e.elbo for e in fit.history])
        dots = [line for line in ax.lines if line.get_linestyle() == "None"]
        for fit, dot in zip(fits, dots, strict=True):
            assert dot.get_xdata()[0] == fit.decided_at
            assert dot.get_ydata()[0] == pytest.approx(fit.history[fit.decided_at - 1].elbo)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["fit 0", "fit 1", "fit 2"]
    assert bp.plots.plot_elbo(fits[0]).get_legend() is None  # one fit needs no name


@pytest.mark.parametrize("cost", ["macs", "parameters"])
def test_cost_is_in_percent_of_the_dense_network(fits, cost):
    ax = bp.plots.plot_cost(fits, cost)
    for fit, line in zip(fits, ax.lines, strict=True):
        drawn = line.get_ydata()[~np.isnan(line.get_ydata())]
        assert drawn == pytest.approx([getattr(e, f"{cost}_percent") for e in fit.history])
    assert ax.get_yscale() == "log" and "% of dense" in ax.get_ylabel()


def test_another_cost_is_refused(fits):
    with pytest.raises(PosteriorError, match="cost='flops'"):
        bp.plots.plot_cost(fits, "flops")


def test_units_left_are_a_row_a_group_and_the_mean_of_the_fits(fits):
    ax = bp.plots.plot_kept(fits[0])
    drawn = ax.images[0].get_array()  # (groups, epochs), percent
    for row, (name, size) in enumerate({"input": 6, "0": 5}.items()):
        assert drawn[row].tolist() == pytest.approx([100 * e.kept[name] / size for e in fits[0].history])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["input", "0"]
    ends = [label.get_text() for label in ax.child_axes[0].get_yticklabels()]
    assert ends == [f"{fits[0].history[-1].kept[n]} of {s}" for n, s in (("input", 6), ("0", 5))]

    mean = bp.plots.plot_kept(fits).images[0].get_array()
    last = np.mean([fit.history[-1].kept["0"] / 5 for fit in fits])  # the shorter fit stays as it ended
    assert mean.shape == (2, 6) and mean[1, -1] == pytest.approx(100 * last)


def test_gates_of_several_fits_have_a_panel_for_each_group_of_each(fits, draws):
    panels = bp.plots.plot_gates(draws, labels=["a", "b", "c$"])
    assert len(panels) == 6
    for number, ax in enumerate(panels):
        fit, (name, size) = fits[number // 2], [("input", 6), ("0", 5)][number % 2]
        drawn = ax.images[0].get_array()  # (units, epochs)
        assert drawn.shape == (size, len(fit.history))
        start = 0 if name == "input" else 6
        final = fit.history[-1].inclusion[start : start + size].numpy()
        assert sorted(drawn[:, -1].tolist()) == pytest.approx(sorted(final.tolist()))
        kept = int((final > 0.5).sum())
        label = ("a", "b", r"c\$")[number // 2]
        assert ax.get_title() == f"{label}, {name}: {kept} of {size} kept"
    assert "decided in epochs" in panels[0].figure.get_suptitle()


def test_chosen_groups_go_into_given_axes(fits):
    given = Figure().add_subplot()
    (ax,) = bp.plots.plot_gates(fits[1], given, groups=["0"])
    assert ax is given and ax.images[0].get_array().shape == (5, 6)
    for settings, message in (
        ({"groups": ["conv"]}, "the groups \\['input', '0'\\]"),
        ({"axes": [given]}, "1 axes for 2 groups of 1 fits: give 2"),
    ):
        with pytest.raises(PosteriorError, match=message):
            bp.plots.plot_gates(fits[1], **settings)


def test_a_model_without_a_fit_has_no_history(fits):
    for plot in (bp.plots.plot_elbo, bp.plots.plot_gates, bp.plots.plot_kept, bp.plots.plot_cost):
        with pytest.raises(PosteriorError, match="group 'history'"):
            plot(fits[0].gated)
