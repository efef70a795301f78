"""On-line learning, simulated: one fresh Gaussian input a step, several students side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from bayesprune.errors import DivergedError, TheoryError
from bayesprune.terminal import bar_hidden
from bayesprune.theory.activation import Activation, Array
from bayesprune.theory.committee import Committee
from bayesprune.theory.order import order_parameters
from bayesprune.theory.training import Training
from bayesprune.theory.trajectory import Trajectory, checked_times

BLOCK = 2**19  # numbers drawn at a time


@dataclass
class Students:
    """The state of S students of equal shape, each learning from its own teacher and inputs.

    Args:
        weights: (S, K, d).
        readout: (S, K).
        activation: g.
    """

    weights: Array
    readout: Array
    activation: Activation


def step_(state: Students, x: Array, target: Array, training: Training) -> Array:
    r"""One step of stochastic gradient descent on ½ (φ(x) − y)², in place.

    .. math:: w_i \mathrel{-}= \tfrac{\eta}{\sqrt d}\, v_i\, g'(\lambda_i)\, \Delta\, x, \qquad
              v_i \mathrel{-}= \tfrac{\eta_v}{d}\, g(\lambda_i)\, \Delta, \qquad \Delta = \varphi(x) - y

    Args:
        state: changed in place.
        x: (S, d), an input for each student.
        target: (S,), y, with its noise.
        training: learning rates.

    Returns:
        (S,), Δ before the step.
    """
    root = np.sqrt(x.shape[1])
    fields = (state.weights @ x[:, :, None])[:, :, 0] / root  # (S, K)
    active = state.activation.value(fields)
    error = (active * state.readout).sum(1) - target  # (S,)
    pull = state.readout * state.activation.slope(fields) * error[:, None]
    state.weights -= (training.learning_rate / root) * pull[:, :, None] * x[:, None, :]
    if training.of_readout:
        state.readout -= training.of_readout / x.shape[1] * active * error[:, None]
    return np.asarray(error)


def simulate(
    students: Sequence[Committee],
    teachers: Sequence[Committee],
    times: Sequence[float] | Array,
    training: Training | None = None,
    seed: int = 0,
    progress: bool = False,
) -> tuple[list[Committee], list[Trajectory]]:
    """Train students on their teachers by on-line stochastic gradient descent.

    Args:
        students: S, of one shape and activation.
        teachers: S, of one shape; the i-th teaches the i-th student.
        times: α = steps / inputs at which to record, rising.
        training: learning rates, and the noise on the teachers' outputs.
        seed: of inputs and noise; they are drawn for each student apart.
        progress: show a bar on stderr.

    Returns:
        The trained students, and for each the course of its order parameters.

    Raises:
        TheoryError: shapes, activations or numbers of students and teachers differ.
        DivergedError: weights became infinite.
    """
    moments, settings = checked_times(times), training or Training()
    _check(students, teachers)
    rng = np.random.default_rng(seed)
    d, activation = students[0].inputs, students[0].activation
    state = Students(
        np.stack([student.weights for student in students]),
        np.stack([student.readout for student in students]),
        activation,
    )
    at = np.rint(moments * d).astype(int)
    records: list[list[Committee]] = []
    rows = max(1, BLOCK // (d * len(students)))
    done = 0
    with tqdm(
        total=int(at[-1]), disable=bar_hidden(progress), desc="simulate", file=sys.stderr, unit="step"
    ) as bar:
        while True:
            while len(records) < len(at) and at[len(records)] == done:
                records.append(_snapshot(state))
            if len(records) == len(at):
                break
            number = min(rows, at[len(records)] - done)
            x = rng.standard_normal((number, len(students), d))
            y = np.stack([teacher(x[:, s]) for s, teacher in enumerate(teachers)], axis=1)  # (steps, S)
            y += settings.noise * rng.standard_normal(y.shape)
            for inputs, target in zip(x, y, strict=True):
                step_(state, inputs, target, settings)
            done += number
            bar.update(number)
            if not np.isfinite(state.weights).all():
                raise DivergedError(
                    f"Weights became infinite before α = {done / d:.3g} at learning rate "
                    f"{settings.learning_rate}: try a smaller one."
                )
    courses = [
        Trajectory(moments, [order_parameters(record[s], teacher) for record in records])
        for s, teacher in enumerate(teachers)
    ]
    return records[-1], courses


def _snapshot(state: Students) -> list[Committee]:
    pairs = zip(state.weights.copy(), state.readout.copy(), strict=True)
    return [Committee(weights, readout, state.activation) for weights, readout in pairs]


def _check(students: Sequence[Committee], teachers: Sequence[Committee]) -> None:
    if not students or len(students) != len(teachers):
        raise TheoryError(
            f"{len(students)} students and {len(teachers)} teachers: give one teacher a student."
        )
    for student, teacher in zip(students, teachers, strict=True):
        order_parameters(student, teacher)  # says what does not fit
    for name, group in (("students", students), ("teachers", teachers)):
        shapes = {(one.weights.shape, one.activation.name) for one in group}
        if len(shapes) > 1:
            raise TheoryError(
                f"The {name} differ in shape or activation: {sorted(shapes)}. Train them apart."
            )
