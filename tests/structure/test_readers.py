"""What follows when a class of units is empty is what looking at every unit finds."""

import numpy as np
import pytest
import torch

import bayesprune as bp
from bayesprune.structure.classes import Classes
from bayesprune.structure.groups import close_over
from bayesprune.structure.readers import Readers
from tests.structure.graph.networks import CASES

FOLLOWING = ["ChannelsFirstFlatten", "LiteralView", "ResidualIdentity", "EinsumByParameters"]


@pytest.mark.parametrize("name", FOLLOWING)
def test_the_classes_that_follow_are_those_that_closing_over_all_units_takes_out(name):
    case = CASES[name]
    gated = bp.gate(
        case.network(torch.float32), *case.batch(2, torch.float32), prior=bp.Budget(macs=0.9),
        likelihood=bp.Categorical(rows=10),
    )  # fmt: skip
    classes = Classes.of(gated.network)
    labels, rng, followed = classes.labels, np.random.default_rng(0), 0
    readers = Readers(gated.network, labels)

    def closed(keep):
        alive = close_over(gated.network.slots, gated.by_group(torch.from_numpy(keep)))
        return torch.cat(list(alive.values())).numpy()

    for share in (1.0, 0.8, 0.6):
        keep = closed((rng.random(len(classes.sizes)) < share)[labels] & (rng.random(len(labels)) < share))
        counts = classes.count(keep)
        for of in counts.nonzero()[0]:
            gone = readers.follow(of, counts)
            followed += len(gone) - 1
            assert np.array_equal(closed(keep & (labels != of)), keep & ~np.isin(labels, gone))
    assert followed > 0
