"""Readings and unit vectors: what readers are handed, in rows of layers and others, equals what hooks see."""

import pytest
import torch

from bayesprune.errors import SelectionError
from bayesprune.selection import Subject
from bayesprune.selection.activations import unit_vectors
from bayesprune.structure.graph.readings import readings
from tests.selection.networks import example_of, posterior_of


def test_vectors_of_a_chain_and_of_a_graph_are_the_layers_inputs():
    example = example_of("lenet5")
    seen = {}
    for name in ("conv2", "fc1", "head"):
        layer = example.network.get_submodule(name)
        hook = layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.__setitem__(name, inputs[0]))
        example.network(example.x)
        hook.remove()
    gated = posterior_of(example)
    for subject in (Subject.of(example.network, example.x), Subject.of(gated, example.x)):
        vectors = unit_vectors(subject, example.x)
        assert torch.equal(vectors["conv1"], seen["conv2"].movedim(1, 0).flatten(1))
        assert torch.equal(vectors["fc1"], seen["head"].T)
        columns = seen["fc1"].reshape(len(example.x), 6, 4)  # (rows, filters, positions)
        filters = columns.movedim(1, 0).transpose(1, 2).flatten(1)  # position by position
        assert torch.equal(vectors["conv2"], filters)
    assert torch.equal(unit_vectors(subject, example.x)["flatten"], seen["fc1"].T)


def test_removed_units_have_zeros():
    example = example_of("mlp")
    gated = posterior_of(example)
    gated.remove_(gated.log_odds < 0)
    vectors = unit_vectors(Subject.of(gated, example.x), example.x)
    for group, alive in gated.by_group(gated.alive).items():
        assert bool((vectors[group][~alive] == 0).all())
        assert vectors[group].shape == (len(alive), len(example.x))


@pytest.mark.parametrize("name", ["mlp", "lenet5", "residual", "attention"])
def test_gates_close_what_readers_see(name):
    example = example_of(name)
    subject = Subject.of(example.network, example.x)
    first = subject.groups[0]
    mask = torch.ones(first.size, dtype=torch.double)
    mask[0] = 0
    for reading in readings(subject.network, example.x, {first.name: mask}):
        ids = reading.units.get(first.name)
        if ids is not None:
            assert bool((reading.values[ids == 0] == 0).all())


def test_activations_that_are_not_finite_are_named():
    example = example_of("mlp")
    x = example.x.clone()
    x[3, 2] = torch.nan
    with pytest.raises(
        SelectionError, match=r"Activations of 'fc1', 'fc2' are not all finite at the 40 rows"
    ):
        readings(Subject.of(example.network, example.x).network, x)
