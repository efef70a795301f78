"""Errors of pruned students, rule by rule: in the limit of many inputs, and of simulated students."""

import numpy as np

from bayesprune import theory as th

KERNELS = ("gram", "fields", "gaussian")
NODES = ("random_node", "importance_node", "signed_importance_node", *(f"dpp_{kernel}" for kernel in KERNELS))
EDGES = ("random_edge", "magnitude_edge")
RULES = (*NODES, *EDGES)
FUSED = (False, True)


def predicted(order, kept, inputs):
    """{(rule, fused): E ε} in closed form from order parameters; d sets the equal number of edges."""
    share = th.equal_edges(order.units, inputs, kept) / (order.units * inputs)
    found = {}
    for fused in FUSED:
        found["random_edge", fused] = th.generalisation_error(th.thinned(order, share, fused))
        found["magnitude_edge", fused] = th.generalisation_error(th.clipped(order, share, fused))
        for rule in NODES:
            law = inclusion_and_law(rule, order, kept)
            if not fused:
                found[rule, fused] = th.expected_error(order, law[0]())
            elif rule == "dpp_gram":
                found[rule, fused] = th.expected_fused_error(order, kept)
            else:
                subsets, chances = law[1]()
                errors = [th.generalisation_error(th.fuse_nodes(order, units)) for units in subsets]
                found[rule, fused] = float(chances @ errors)
    return found


def inclusion_and_law(rule, order, kept):
    """Two functions: P(i and j kept), and every subset with its probability."""
    if rule == "random_node":
        return lambda: th.random_inclusion(order.units, kept), lambda: th.subset_law(order.units, kept)
    if rule.startswith("dpp_"):
        kernel = th.node_kernel(order, rule[4:])
        return lambda: th.dpp_inclusion(kernel, kept), lambda: th.subset_law(order.units, kept, kernel)
    units = ranked(rule, order, kept)
    inside = np.isin(range(order.units), units)
    return lambda: np.outer(inside, inside).astype(float), lambda: (units[None], np.ones(1))


def ranked(rule, order, kept):
    """The units with the largest |v|, or (as the public code of the paper ranks) the largest v."""
    if rule == "importance_node":
        return th.important_nodes(order, kept)
    return np.sort(np.argsort(-order.readout, kind="stable")[:kept])


def pruned(rule, student, order, kept, rng):
    """One pruned student of a rule, its second layer as it was."""
    if rule in EDGES:
        edges = th.equal_edges(student.units, student.inputs, kept)
        draw = rule == "random_edge"
        mask = th.random_edges(student, edges, rng) if draw else th.magnitude_edges(student, edges)
        return th.masked(student, mask)
    if rule == "random_node":
        units = th.random_nodes(order, kept, rng)
    elif rule.startswith("dpp_"):
        units = th.dpp_nodes(order, kept, rng, rule[4:])
    else:
        units = ranked(rule, order, kept)
    inside = np.isin(range(student.units), units)
    return th.Committee(student.weights * inside[:, None], student.readout * inside, student.activation)


def simulated(student, teacher, kept, draws, rng):
    """{(rule, fused): mean ε over draws} of the pruned networks, and one of each against Monte Carlo.

    The second value is a list of (closed form − Monte Carlo on fresh inputs) / standard error.
    """
    order = th.order_parameters(student, teacher)
    found, checks = {}, []
    for rule in RULES:
        number = 1 if rule in ("importance_node", "signed_importance_node", "magnitude_edge") else draws
        errors = {fused: [] for fused in FUSED}
        for _ in range(number):
            plain = pruned(rule, student, order, kept, rng)
            for fused in FUSED:
                one = th.fuse(plain, student) if fused else plain
                errors[fused].append(th.generalisation_error(th.order_parameters(one, teacher)))
        for fused in FUSED:
            found[rule, fused] = float(np.mean(errors[fused]))
        estimate, deviation = th.monte_carlo_error(one, teacher, 20_000, rng)
        checks.append((errors[True][-1] - estimate) / deviation)
        equal = kept * (student.inputs + 1)
        if plain.parameters > equal:
            raise AssertionError(f"{rule} keeps {plain.parameters} parameters, not {equal}")
    return found, checks
