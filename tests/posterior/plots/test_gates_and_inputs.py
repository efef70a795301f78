"""Plots and tables of a fit show what the fit says."""

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import bayesprune as bp
from bayesprune.posterior import plot_gates, plot_inputs
from bayesprune.posterior.plots import describe_history, save_figure


@pytest.fixture(scope="module")
def result():
    torch.manual_seed(0)
    x = torch.randn(200, 6)
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Categorical(rows=200))
    gates = bp.GateSteps(learning_rate=0.5, momentum=0.5, clip=1.0, every=1)
    recipe = bp.Recipe(gates=gates, shrink=bp.Shrink(every=3), learning_rate=1e-2)
    return bp.fit(gated, (x, (x[:, 0] > 0).long()), epochs=8, batch_size=10, recipe=recipe, progress=False)


def test_gates_have_a_panel_a_group_with_its_count(result):
    panels = plot_gates(result)
    kept = result.gated.kept()
    sizes = {"input": 6, "0": 5}
    assert [ax.get_title() for ax in panels] == [f"{n}: {kept[n]} of {s} kept" for n, s in sizes.items()]
    assert 0 < kept["input"] < 6
    drawn = panels[0].images[0].get_array()  # (units, epochs)
    assert drawn.shape == (6, 8) and int((drawn[:, -1] > 0.5).sum()) == kept["input"]
    assert f"epoch {result.decided_at} (dotted)" in panels[0].figure.get_suptitle()


def test_inputs_are_drawn_where_they_lie(result):
    kept = result.gated.by_group(result.gated.alive)["input"].reshape(2, 3)
    drawn = plot_inputs(result, (2, 3)).images[0].get_array()
    assert torch.equal(torch.as_tensor(drawn.data) > 0.5, kept)


@pytest.mark.parametrize("nested", [False, True], ids=["figure", "subfigure"])
def test_the_whole_figure_is_saved(nested, result, tmp_path):
    figure = Figure(figsize=(4, 2))
    ax = (figure.subfigures(1, 2)[0] if nested else figure).add_subplot()
    plot_inputs(result, (2, 3), ax)
    save_figure(ax, str(tmp_path / "a.png"))
    content = (tmp_path / "a.png").read_bytes()
    assert content[:4] == b"\x89PNG"
    assert [int.from_bytes(content[i : i + 4], "big") for i in (16, 20)] == [600, 300]  # 150 dots an inch


def test_history_is_a_table_with_a_line_an_epoch(result):
    heading, *lines = describe_history(result.history).splitlines()
    assert heading.split()[0] == "epoch" and len(lines) == 8
    last = lines[-1].split()
    assert last[0] == "8" and last[-1] == "-".join(map(str, result.architecture))
    assert float(last[3]) == pytest.approx(result.history[-1].parameters_percent, abs=0.01)
    assert {line.rindex(" ") for line in lines} == {heading.rindex(" ")}  # columns line up
