r"""The differential equations of the order parameters under on-line learning.

Time α is steps over inputs, α = μ / d. With z = (λ, ρ) all local fields of covariance C, u = (v, −v*), and
Δ = Σ_a u_a g(z_a) − σ ζ what the student says too much, a step changes w_i by −(η/√d) v_i g'(λ_i) Δ x and v_i
by −(η_v/d) g(λ_i) Δ. For d → ∞ order parameters follow their expected change (Saad & Solla 1995; Goldt et al.
2019 with second layers):

.. math::
    \dot R_{in} &= -\eta\, v_i D_{i,n} \\
    \dot Q_{ik} &= -\eta\, (v_i D_{ik} + v_k D_{ki}) + \eta^2 v_i v_k \times \\
                  &\quad \big(E[g'(\lambda_i) g'(\lambda_k)\Delta_0^2]
                   + \sigma^2 E[g'(\lambda_i) g'(\lambda_k)]\big) \\
    \dot v_i &= -\eta_v \textstyle\sum_a u_a E[g(\lambda_i) g(z_a)]

Here Δ_0 is Δ without the noise ζ, and D_ib = E[g'(λ_i) z_b Δ]. Integrating by parts, E[z_b f(z)] =
Σ_c C_bc E[∂f/∂z_c], gives the integral that the literature calls I₃ and, summed over a,

.. math:: D_{ib} = C_{ib} \sum_a u_a E[g''(\lambda_i) g(z_a)] + \sum_a E[g'(\lambda_i) g'(z_a)]\, u_a C_{ab}

in closed form for erf and ReLU. What is of second order is in :mod:`bayesprune.theory.fluctuation`.
"""

from __future__ import annotations

import numpy as np

from bayesprune.theory.activation import Array
from bayesprune.theory.fluctuation import fluctuation
from bayesprune.theory.order import OrderParameters
from bayesprune.theory.training import Training


def drift(order: OrderParameters, training: Training) -> tuple[Array, Array, Array]:
    """The rates of change of Q, R and v.

    Args:
        order: the state.
        training: learning rates and noise.

    Returns:
        dQ/dα (K, K), dR/dα (K, M), dv/dα (K,), for α = steps / inputs.
    """
    activation, students = order.activation, order.units
    covariance, contrast, readout = order.fields, order.contrast, order.readout
    own = np.diag(covariance)
    mine = covariance[:students], own[:students, None], own[None, :]  # pairs (student unit, any unit)

    slopes = activation.slopes(*mine)  # (K, K + M)
    correlation = covariance[:students] * (activation.curvature(*mine) @ contrast)[:, None]
    correlation += (slopes * contrast) @ covariance  # (K, K + M), D
    pull = -training.learning_rate * readout[:, None] * correlation

    second = fluctuation(covariance, contrast, students, activation)
    second = second + training.noise**2 * slopes[:, :students]
    towards = pull[:, :students]
    of_q = towards + towards.T + training.learning_rate**2 * np.outer(readout, readout) * second
    of_readout = -training.of_readout * activation.overlap(*mine) @ contrast
    return of_q, pull[:, students:], of_readout
