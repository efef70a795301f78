"""What follows from a removal: units that nobody reads any more go, and nobody else does."""

from __future__ import annotations

import torch

from bayesprune.structure.groups import WHOLE, ByGroup, Slot, close_over


def mask(*bits: int) -> torch.Tensor:
    return torch.tensor(bits, dtype=torch.bool)


def slot(tensor: str, dim: int, group: str, ids: list[int], reads: bool = False) -> Slot:
    return Slot(tensor, dim, group, torch.tensor(ids), reads)


def test_a_filter_whose_features_are_all_gone_goes_too():
    slots = (
        slot("conv.weight", 0, "conv", [0, 1]),
        slot("fc.weight", 1, "conv", [0, 0, 1, 1], reads=True),
        slot("fc.weight", 1, "features", [0, 1, 2, 3], reads=True),
    )
    alive = close_over(slots, {"conv": mask(1, 1), "features": mask(0, 0, 1, 0)})
    assert alive["conv"].tolist() == [False, True]
    assert alive["features"].tolist() == [False, False, True, False]


def test_features_go_with_their_filter():
    slots = (
        slot("conv.weight", 0, "conv", [0, 1]),
        slot("fc.weight", 1, "conv", [0, 0, 1, 1], reads=True),
        slot("fc.weight", 1, "features", [0, 1, 2, 3], reads=True),
    )
    alive = close_over(slots, {"conv": mask(0, 1), "features": mask(1, 1, 1, 1)})
    assert alive["features"].tolist() == [False, False, True, True]


def test_units_that_no_weight_reads_stay_until_their_tensors_go():
    """Dimensions of queries and keys are read by each other alone."""
    slots = (
        slot("q.weight", 0, "qk", [0, 1]),
        slot("k.weight", 0, "qk", [0, 1]),
        slot("q.weight", WHOLE, "layers", [0]),
        slot("k.weight", WHOLE, "layers", [0]),
    )
    assert close_over(slots, {"qk": mask(1, 0), "layers": mask(1)})["qk"].tolist() == [True, False]
    dead = close_over(slots, {"qk": mask(1, 1), "layers": mask(0)})
    assert dead["qk"].tolist() == [False, False]


def test_what_it_is_given_is_left_alone():
    slots = (slot("a.weight", 1, "a", [0], reads=True), slot("a.weight", WHOLE, "layers", [0]))
    given = {"a": mask(1), "layers": mask(0)}
    assert not close_over(slots, given)["a"].any()
    assert given["a"].all()


def test_units_laid_end_to_end_are_told_by_group():
    units = torch.tensor([4, -1, 0, 6, 5, 2])
    told = {name: ids.tolist() for name, ids in ByGroup({"a": 3, "empty": 1, "b": 3})(units)}
    assert told == {"a": [-1, -1, 0, -1, -1, 2], "b": [0, -1, -1, 2, 1, -1]}
    assert not ByGroup({"a": 3})(torch.tensor([-1, 3]))
    features, channels = torch.tensor([-1, 4]), torch.tensor([1, 1])
    told = {name: ids.tolist() for name, ids in ByGroup({"a": 3, "b": 3})(channels, features)}
    assert told == {"a": [1, 1], "b": [-1, 1]}
