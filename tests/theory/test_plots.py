"""Simulation and equations appear on one pair of axes, as they are."""

import numpy as np
import pytest

from bayesprune.errors import TheoryError
from bayesprune.theory import Training, plot_learning, simulate, solve


def test_dots_and_lines(pair):
    student, teacher = pair("erf")
    times = [0.0, 1.0, 2.0]
    _, simulated = simulate([student] * 2, [teacher] * 2, times, Training(0.2))
    equations = [solve(course.orders[0], times, Training(0.2)) for course in simulated]
    ax = plot_learning(simulated, equations)
    lines, dots = ax.lines[:2], ax.lines[2:]
    assert [line.get_linestyle() for line in lines] == ["-", "-"]
    assert [line.get_linestyle() for line in dots] == ["None", "None"]
    assert lines[0].get_color() == dots[0].get_color() != dots[1].get_color()
    assert dots[1].get_ydata() == pytest.approx(simulated[1].errors)
    assert (dots[1].get_xdata() > 0).all() and dots[1].get_xdata()[1:] == pytest.approx(times[1:])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["equations", "simulation"]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert plot_learning(simulated, [], ax) is ax


def test_errors_of_zero_are_drawn_on_the_floor(order):
    start = order("erf")
    perfect = start.with_student(start.T, start.T) if start.units == 3 else order("erf", 3)
    perfect = type(perfect)(
        perfect.T, perfect.T, perfect.T, perfect.teacher_readout, perfect.teacher_readout, "erf"
    )
    ax = plot_learning([], [solve(perfect, [1.0, 2.0])])
    assert np.isfinite(ax.lines[0].get_ydata()).all() and (ax.lines[0].get_ydata() > 0).all()


def test_nothing_to_draw():
    with pytest.raises(TheoryError, match="nothing to draw: give at least one trajectory"):
        plot_learning([], [])
