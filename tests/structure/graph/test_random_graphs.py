"""Networks drawn at random, units removed at random: masked and cut are the same, and it mattered.

BAYESPRUNE_NIGHTLY=1 pytest tests/structure/graph/test_random_graphs.py     # 1,000 networks, not 40
"""

import os
import statistics
from collections import Counter

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bayesprune.errors import DataError, RemovalError
from bayesprune.structure.graph import analyse
from tests.structure.graph import forms
from tests.structure.graph.checks import (
    EFFECT,
    assert_same,
    difference,
    drawn_alive,
    gates_of,
    only,
    run,
)
from tests.structure.graph.networks import removable_share
from tests.structure.graph.programs import OPERATIONS, SIZE, Program, Step, network_of, programs

NIGHTLY = os.environ.get("BAYESPRUNE_NIGHTLY") == "1"
EXAMPLES = 1000 if NIGHTLY else 25
LEAST_MEAN_SHARE = 0.8
MOST_REFUSED = 0.01  # of random cuts of random networks
drawn = settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes: a drawn program is short already
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def batch(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, 3, SIZE, SIZE, generator=generator, dtype=torch.float64),)


def removal_that_matters(network, analysis, x, seed):
    """Some 30 % of every group, or more of it until the outputs change: a dead unit's loss shows nothing."""
    whole = run(network, x, False)
    for share in (0.3, 0.5, 0.7, 0.9):
        alive = drawn_alive(analysis, seed, share)
        masked = run(analysis.gated, x, False, gates_of(alive, torch.float64))
        if (masked - whole).abs().max().item() > EFFECT:
            return alive
    raise AssertionError("nearly every unit can be removed without an effect: the gates reach nothing")


def test_cut_equals_masked_on_random_networks():
    shares, refused = [], []

    def check(program, seed):
        network = network_of(program)
        analysis = analyse(network, batch(2, seed))
        shares.append(removable_share(network, analysis))
        x = batch(5, seed + 1)
        assert_same(run(analysis.gated, x, True), run(network, x, True))
        alive = removal_that_matters(network, analysis, x, seed)
        one = only(analysis, analysis.groups[seed % len(analysis.groups)].name, alive)
        for removal in (alive, one):
            small = analysis.cut(removal)
            for training in (False, True):
                masked = run(analysis.gated, x, training, gates_of(removal, torch.float64))
                assert_same(run(small, x, training), masked)
        fewer = drawn_alive(analysis, seed + 1, before=alive)
        at_once = run(analysis.cut(fewer), x, True)
        analysis.cut_(alive)
        analysis.cut_(fewer)
        assert_same(run(analysis.gated, x, True), at_once)

    @given(program=programs, seed=st.integers(0, 2**16))
    @drawn
    def check_or_refused(program, seed):
        """A cut may be refused where an operation has no form for it; it may never be wrong."""
        try:
            check(program, seed)
        except RemovalError:
            refused.append(program)

    check_or_refused()
    assert statistics.mean(shares) > LEAST_MEAN_SHARE
    assert len(refused) < MOST_REFUSED * len(shares)


def test_every_operation_is_drawn_and_every_program_is_a_network():
    seen = set()

    @given(program=programs)
    @settings(drawn, max_examples=200)
    def check(program):
        network = network_of(program)
        assert run(network, batch(2, 0), True).isfinite().all()
        seen.update(step.op for step in program.steps)

    check()
    assert seen == set(OPERATIONS)


def test_a_printed_program_is_the_same_network_again():
    program = Program(
        3, (Step("grouped", 0, 0, 1, 1), Step("shuffle", 1, 0, 2, 0), Step("add", 2, 0, 0, 0)), True
    )
    again = eval(repr(program), {"Program": Program, "Step": Step})
    x = batch(3, 0)
    first, second = run(network_of(program), x, True), run(network_of(again), x, True)
    assert torch.equal(first, second)
    assert difference(run(network_of(Program(4, program.steps, True)), x, True), first) > EFFECT


def test_forms_of_inputs_and_sizes_are_as_the_network_takes_them():
    """At another size the graph is the network, or says that the size is fixed; cut it is the masked one."""
    seen, free = Counter(), 0

    @given(
        program=programs,
        seed=st.integers(0, 2**16),
        form=st.sampled_from(forms.FORMS),
        outputs=st.sampled_from(forms.FORMS),
        size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    )
    @settings(drawn, max_examples=12 if not NIGHTLY else 500)
    def check(program, seed, form, outputs, size):
        nonlocal free
        network = forms.Formed(network_of(program), outputs).double()
        analysis = analyse(network, forms.inputs(form, 2, SIZE, SIZE, seed))
        alive = drawn_alive(analysis, seed)
        try:
            small = analysis.cut(alive)
        except RemovalError:
            return
        seen[form] += 1
        for height, width in ((SIZE, SIZE), size):
            batch = forms.inputs(form, 3, height, width, seed + 1)
            try:
                whole = forms.run(network, batch, False)
            except (RuntimeError, ValueError, AssertionError):  # the network takes no other size either
                continue
            try:
                for training in (False, True):
                    assert_same(
                        forms.run(analysis.gated, batch, training), forms.run(network, batch, training)
                    )
                    masked = forms.run(analysis.gated, batch, training, gates_of(alive, torch.float64))
                    assert_same(forms.run(small, batch, training), masked)
            except DataError:
                assert (height, width) != (SIZE, SIZE)
                continue
            free += (height, width) != (SIZE, SIZE)
            assert whole.shape[0] == 3

    check()
    assert set(seen) == set(forms.FORMS)
    assert free >= sum(seen.values()) / 4  # some networks do not run at every size, few are fixed
