"""LeNet-300-100 with spike-and-slab units: gates and weights both have posteriors (SS-IG).

A unit is there with Gaussian incoming weights, or it is not there at all. The prior inclusion probability
of a layer shrinks with its fan-in and width (Jantre, Bhattacharya & Maiti, arXiv 2108.11000); a unit also
pays, through the KL of its slab, for every weight that it has learnt anything about. It is for tens of
thousands of rows: on the thousand and a half of the embedded digits a mean-field posterior says less than
its weights cost, and underfits.
"""

from collections import OrderedDict

from torch import nn

import bayesprune as bp

SLAB_SCALE = 1.0  # prior standard deviation of a weight that is there
INITIAL_INCLUSION = 0.99

EPOCHS = {"digits*": 150, "*": 30}
BATCH_SIZE = {"digits*": 32, "*": 128}
INFERENCE = "svi_spike_slab"


def network(inputs, classes):
    """784-300-100-classes with rectifiers."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),  # (B, 784)
            fc1=nn.Linear(inputs, 300),
            relu1=nn.ReLU(),  # (B, 300)
            fc2=nn.Linear(300, 100),
            relu2=nn.ReLU(),  # (B, 100)
            fc3=nn.Linear(100, classes),  # (B, classes)
        )
    )


def model(train, classes, price=None):
    """Hidden units are spike-and-slab; inputs have no weights of their own, and stay."""
    inclusion = bp.priors.LayerAdaptive() if price is None else bp.priors.Flattening(price)
    return bp.gate(
        network(train.x[0].numel(), classes),
        train.x[:1],
        prior=bp.priors.SpikeAndSlab(slab_scale=SLAB_SCALE, inclusion=inclusion),
        likelihood=bp.Categorical(rows=len(train.x)),
        exclude=("input",),
        initial_inclusion=INITIAL_INCLUSION,
    )
