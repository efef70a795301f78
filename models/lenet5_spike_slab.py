"""LeNet-5-Caffe with spike-and-slab filters and hidden units: gates and weights both have posteriors (SS-IG).

A filter or unit is there with Gaussian incoming weights, or it is not there at all. The prior inclusion
probability of a layer shrinks with its fan-in and width (Jantre, Bhattacharya & Maiti, arXiv 2108.11000); a
unit also pays, through the KL of its slab, for every weight that it has learnt anything about. It is for
tens of thousands of rows: on the thousand and a half of the embedded digits a mean-field posterior says
less than its weights cost, and underfits.
"""

from collections import OrderedDict

from torch import nn

import bayesprune as bp

SLAB_SCALE = 1.0  # prior standard deviation of a weight that is there
INITIAL_INCLUSION = 0.99

EPOCHS = {"digits*": 150, "*": 30}
BATCH_SIZE = {"digits*": 32, "*": 128}
INFERENCE = "svi_spike_slab_published"


def network(classes):
    """LeNet-5-Caffe: 20 and 50 filters, 800 features, 500 hidden units."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 20, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),  # (B, 20, 12, 12)
            conv2=nn.Conv2d(20, 50, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),  # (B, 50, 4, 4)
            flatten=nn.Flatten(),  # (B, 800)
            fc1=nn.Linear(800, 500),
            relu3=nn.ReLU(),  # (B, 500)
            fc2=nn.Linear(500, classes),  # (B, classes)
        )
    )


def model(train, classes, price=None):
    """Filters and hidden units are spike-and-slab; flattened features have no incoming weights, and stay."""
    inclusion = bp.priors.LayerAdaptive() if price is None else bp.priors.Flattening(price)
    return bp.gate(
        network(classes),
        train.x[:1],
        prior=bp.priors.SpikeAndSlab(slab_scale=SLAB_SCALE, inclusion=inclusion),
        likelihood=bp.Categorical(rows=len(train.x)),
        exclude=("flatten",),
        initial_inclusion=INITIAL_INCLUSION,
    )
