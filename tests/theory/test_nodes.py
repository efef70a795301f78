"""Node pruning: every closed form against the sum over all subsets, draws against their law."""

import numpy as np
import pytest
from scipy.stats import chisquare

from bayesprune.errors import TheoryError
from bayesprune.theory import (
    Committee,
    OrderParameters,
    dpp_inclusion,
    dpp_nodes,
    expected_error,
    expected_fused_error,
    fuse_nodes,
    generalisation_error,
    grams,
    important_nodes,
    node_kernel,
    order_parameters,
    random_inclusion,
    random_nodes,
    subset_law,
)
from bayesprune.theory.expected import residual_share
from bayesprune.theory.symmetric import log_symmetric, log_symmetric_without_one, log_symmetric_without_two

FALSE_ALARM = 1e-5
KERNELS = ["gram", "fields", "gaussian"]


def averaged(order, kept, kernel, fused):
    """E[ε], one subset after the other."""
    subsets, probability = subset_law(order.units, kept, kernel)
    keep = fuse_nodes if fused else OrderParameters.keep
    return probability @ [generalisation_error(keep(order, list(units))) for units in subsets]


@pytest.mark.parametrize("kept", [1, 2, 3, 4, 5])
def test_random(activation, kept, order):
    found = order(activation)
    assert expected_error(found, random_inclusion(5, kept)) == pytest.approx(
        averaged(found, kept, None, False)
    )


@pytest.mark.parametrize("kept", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", KERNELS)
def test_dpp(activation, kept, kind, order):
    found = order(activation)
    kernel = node_kernel(found, kind)
    inclusion = dpp_inclusion(kernel, kept)
    assert expected_error(found, inclusion) == pytest.approx(averaged(found, kept, kernel, False))
    assert np.trace(inclusion) == pytest.approx(kept)
    assert inclusion.sum() == pytest.approx(kept**2)


@pytest.mark.parametrize("kept", [1, 2, 3, 4, 5])
def test_fused_dpp(activation, kept, order):
    found = order(activation)
    gram = node_kernel(found)
    assert expected_fused_error(found, kept) == pytest.approx(averaged(found, kept, gram, True))


@pytest.mark.parametrize("kept", [1, 3, 5])
def test_expected_residual_of_a_k_dpp(activation, kept, order):
    """G A is the mean of G − G_·S G_SS⁻¹ G_S·, entry by entry."""
    gram = grams(order(activation)).student
    mean = np.zeros_like(gram)
    for units, probability in zip(*subset_law(5, kept, gram), strict=True):
        columns = gram[:, units]
        mean += probability * (gram - columns @ np.linalg.solve(gram[np.ix_(units, units)], columns.T))
    assert gram @ residual_share(gram, kept) == pytest.approx(mean, abs=1e-12)


def test_forty_units_against_draws(order):
    """Where no enumeration reaches; one false alarm in 1.7 million."""
    found = order("erf", 40, 4, 60)
    rng = np.random.default_rng(0)
    draws = [dpp_nodes(found, 8, rng) for _ in range(600)]
    for fused, exact in (
        (False, expected_error(found, dpp_inclusion(node_kernel(found), 8))),
        (True, expected_fused_error(found, 8)),
    ):
        keep = fuse_nodes if fused else OrderParameters.keep
        errors = np.array([generalisation_error(keep(found, units)) for units in draws])
        assert abs(errors.mean() - exact) < 5 * errors.std(ddof=1) / np.sqrt(len(errors))


@pytest.mark.parametrize("rule", ["random", "gram", "gaussian"])
def test_draws_follow_their_law(rule, order):
    found = order("erf")
    rng = np.random.default_rng(3)
    kernel = None if rule == "random" else node_kernel(found, rule)
    subsets, probability = subset_law(5, 2, kernel)
    draw = (
        (lambda: random_nodes(found, 2, rng)) if kernel is None else (lambda: dpp_nodes(found, 2, rng, rule))
    )
    number = {tuple(units): index for index, units in enumerate(subsets.tolist())}
    counts = np.bincount([number[tuple(draw().tolist())] for _ in range(4000)], minlength=len(subsets))
    assert chisquare(counts, 4000 * probability).pvalue > FALSE_ALARM


def test_important_units_have_the_largest_readouts(order):
    found = order("erf").with_readout(np.array([0.1, -3.0, 2.0, 0.0, -2.5]))
    assert important_nodes(found, 3).tolist() == [1, 2, 4]


def test_kernels_on_sampled_activations(activation, pair):
    """Each kernel is the limit of one on activation vectors over many rows."""
    student, teacher = pair(activation, inputs=4)
    order = order_parameters(student, teacher)
    x = np.random.default_rng(0).standard_normal((200_000, 4))
    active = student.activation.value(student.fields(x))
    gram = active.T @ active / len(x)
    assert node_kernel(order) == pytest.approx(gram, abs=0.03)
    unit = student.weights / np.linalg.norm(student.weights, axis=1, keepdims=True) * 2  # √d
    fields = Committee(unit, student.readout, activation).fields(x)
    assert node_kernel(order, "fields") == pytest.approx(fields.T @ fields / len(x), abs=0.03)
    apart = ((active[:, :, None] - active[:, None, :]) ** 2).mean(0)
    assert node_kernel(order, "gaussian", 3.0) == pytest.approx(np.exp(-3 * apart), abs=0.03)


@pytest.mark.parametrize("scale", [1e-160, 1e160])
def test_expectations_neither_overflow_nor_underflow(scale):
    """Of 20 units with powers from 1 to 10⁻⁶, far beyond what products of floats can hold."""
    gram = scale * np.diag(np.geomspace(1, 1e-6, 20))
    assert dpp_inclusion(gram, 10).trace() == pytest.approx(10)
    assert np.trace(gram @ residual_share(gram, 10)) / scale == pytest.approx(
        np.trace(gram / scale @ residual_share(gram / scale, 10))
    )


def test_symmetric_polynomials():
    values = np.array([0.5, 2.0, 3.0, 1e-9])
    whole = lambda left, degree: np.exp(log_symmetric(left, degree)[degree])  # noqa: E731
    assert [whole(values, degree) for degree in range(5)] == pytest.approx(np.abs(np.poly(values)))
    for degree in (0, 1, 2):
        one = np.exp(log_symmetric_without_one(values, degree))
        two = np.exp(log_symmetric_without_two(values, degree))
        for i in range(4):
            assert one[i] == pytest.approx(whole(np.delete(values, i), degree), rel=1e-12)
            for j in set(range(4)) - {i}:
                assert two[i, j] == pytest.approx(whole(np.delete(values, [i, j]), degree), rel=1e-12)
    assert (log_symmetric_without_two(values, -1) == -np.inf).all()


def test_what_cannot_be_kept(order):
    found = order("erf")
    rng = np.random.default_rng(0)
    for rule in (important_nodes, lambda o, k: random_nodes(o, k, rng), lambda o, k: dpp_nodes(o, k, rng)):
        for kept in (0, 6, 1.5):
            with pytest.raises(
                TheoryError, match=f"Cannot keep {kept} of 5 units: give a whole number from 1 to 5"
            ):
                rule(found, kept)
    with pytest.raises(TheoryError, match="There is no kernel 'cosine': use 'gram', 'fields' or 'gaussian'"):
        node_kernel(found, "cosine")
    with pytest.raises(TheoryError, match="bandwidth=-1: give a positive number"):
        node_kernel(found, "gaussian", -1)
    with pytest.raises(
        TheoryError, match=r"has rank 1: no 2 units are independent under it\. Keep at most 1"
    ):
        dpp_inclusion(np.ones((3, 3)), 2)
    with pytest.raises(TheoryError, match="137,846,528,820 subsets of 20, over 200,000: draw some instead"):
        subset_law(40, 20)
    with pytest.raises(TheoryError, match=r"inclusion has shape \(4, 4\): give \(5, 5\)"):
        expected_error(found, np.eye(4))
    dead = found.with_student(found.Q * 0, found.R * 0)
    with pytest.raises(TheoryError, match=r"Units \[0, 1, 2, 3, 4\] have no weights"):
        node_kernel(dead, "fields")
