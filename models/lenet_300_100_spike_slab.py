"""LeNet-300-100 with spike-and-slab units: gates and weights both have posteriors (SS-IG).

A unit is there with Gaussian weights, or it is not there at all. The same holds of inputs: a weight is there
only while both units are that it joins, so that an input pays for the weights that read it. Each weight's
slab has the scale of the most evidence (automatic relevance determination): a weight that has learnt nothing
costs nothing, where under one scale for all it costs as much as one that has. The price of a unit is besides
what its weights pay. Settings were chosen on rows held out from the training rows.

``published=True`` has the slabs of Jantre, Bhattacharya & Maiti (arXiv 2108.11000): one scale, 1.0, for all
weights, inclusion probabilities that shrink with a layer's fan-in and width, and inputs that stay. It is
for ``--inference svi_spike_slab_published``.
"""

from collections import OrderedDict

from torch import nn

import bayesprune as bp

PRICE, POWER = 8.0, 0.56  # nats a unit, for 60,000 rows; 1.0 for 1,437
INITIAL_INCLUSION = 0.99
PUBLISHED_SLAB_SCALE = 1.0  # prior standard deviation of a weight that is there

EPOCHS = {"digits*": 100, "*": 40}
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


def prices(rows):
    """Nats a unit: evidence grows with the rows, so on fewer of them a unit has to earn less."""
    price = PRICE * (rows / 60_000) ** POWER
    return {"input": price, "fc1": price, "fc2": price}


def model(train, classes, price=None, published=False):
    """The gated model for a training split: ``train.x`` (rows, 1, 28, 28), ``train.y`` (rows,)."""
    price = prices(len(train.x)) if price is None else price
    slabs = bp.priors.SpikeAndSlab(inclusion=bp.priors.Flattening(price), relevance=True)
    if published:
        slabs = bp.priors.SpikeAndSlab(PUBLISHED_SLAB_SCALE, inclusion=bp.priors.LayerAdaptive())
    return bp.gate(
        network(train.x[0].numel(), classes),
        train.x[:1],
        prior=slabs,
        likelihood=bp.Categorical(rows=len(train.x)),
        exclude=("input",) if published else (),
        initial_inclusion=INITIAL_INCLUSION,
    )
