"""A student learns from a teacher, in simulation and by its equations; then theory says what pruning loses.

    python examples/teacher_student.py [--inputs 300] [--time 300] [--out learning.png]

The student has six units for the teacher's two, so that it learns each three times over. Two of six units are
kept: at random or diverse ones (a k-DPP), as they were or re-weighted; or a third of the edges, as many
parameters.
"""

import argparse

import numpy as np

from bayesprune import theory

KEPT, DRAWS = 2, 200


def main():
    """Learn, solve, plot, prune."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=300)
    parser.add_argument("--time", type=float, default=300.0, help="examples over inputs")
    parser.add_argument("--out", default="learning.png")
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    teacher = theory.draw_committee(2, arguments.inputs, rng, readout=4.0)
    student = theory.draw_committee(6, arguments.inputs, rng, readout=rng.standard_normal(6))
    times = [0.0, *np.geomspace(0.1, arguments.time, 20)]
    training = theory.Training(learning_rate=0.5)

    (student,), simulated = theory.simulate([student], [teacher], times, training, progress=True)
    solved = theory.solve(simulated[0].orders[0], times, training)
    theory.plot_learning(simulated, [solved]).figure.savefig(arguments.out, dpi=150)
    order = theory.order_parameters(student, teacher)
    error = theory.generalisation_error
    print(f"error {error(order):.4f} in simulation, {solved.errors[-1]:.4f} by the equations")

    anything = theory.random_inclusion(student.units, KEPT)
    diverse = theory.dpp_inclusion(theory.node_kernel(order), KEPT)
    edges = theory.equal_edges(student.units, student.inputs, KEPT)
    thin = [theory.masked(student, theory.random_edges(student, edges, rng)) for _ in range(DRAWS)]
    drawn = [theory.fuse_nodes(order, theory.dpp_nodes(order, KEPT, rng)) for _ in range(DRAWS)]
    share = edges / student.weights.size
    print(f"kept at {KEPT * (student.inputs + 1):,} parameters    theory   mean of {DRAWS} draws")
    print(f"  random nodes            {theory.expected_error(order, anything):.4f}")
    print(f"  diverse nodes           {theory.expected_error(order, diverse):.4f}")
    print(f"  diverse, re-weighted    {theory.expected_fused_error(order, KEPT):.4f}", end="   ")
    print(f"{np.mean([error(one) for one in drawn]):.4f}")
    print(f"  random edges            {error(theory.thinned(order, share)):.4f}", end="   ")
    print(f"{np.mean([error(theory.order_parameters(one, teacher)) for one in thin]):.4f}")
    print(f"learning curve in {arguments.out}")


if __name__ == "__main__":
    main()
