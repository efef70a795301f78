"""Students and teachers to try the theory on."""

import numpy as np
import pytest

from bayesprune.theory import draw_committee, order_parameters

VALUES = {"erf": 1.0, "relu": 0.7}


@pytest.fixture(params=["erf", "relu"])
def activation(request):
    return request.param


@pytest.fixture
def pair():
    """pair(activation, units, teacher_units, inputs, seed) → a student and a teacher that have overlaps."""

    def pair(activation, units=5, teacher_units=3, inputs=30, seed=0):
        rng = np.random.default_rng(seed)
        readout = rng.standard_normal(teacher_units) + 2
        teacher = draw_committee(teacher_units, inputs, rng, readout, activation)
        student = draw_committee(
            units, inputs, rng, rng.standard_normal(units), activation, VALUES[activation]
        )
        student.weights[:2] += 0.8 * teacher.weights[:1]
        return student, teacher

    return pair


@pytest.fixture
def order(pair):
    """order(activation, …) → order parameters of such a pair."""

    def order(*arguments, **named):
        return order_parameters(*pair(*arguments, **named))

    return order
