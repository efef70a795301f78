r"""What a pruned network is measured against: networks learnt by a plain loop on the same rows.

- *dense*: the same network from the same first weights, whole and without gates.
- *small dense*: the same layers, narrower from the start: all widths cut to the same share of an
  initialisation of its own, so that it costs no more than the pruned network.
- *magnitude*: the dense network for the first half of the steps, then cut once to the same cost by the norms
  of its units (Li et al. 2017), and fine-tuned for the other half; or cut step by step until then.
- *accepted*: the dense network, from which units go in the first half of the steps where a Bayes factor
  accepts that they do (Mathew & Rowe 2023), and the other half of the steps.
- *from scratch*: the very shape that was kept, inputs too, from fresh weights.

All take the epochs, batches, order of rows, and learning rates of the fit: fused Adam at a constant rate,
then along a cosine from the step at which the recipe decides at the latest (for *magnitude*: from the cut).
The Gaussian prior N(0, s²) of the weights is its decay, 1/(rows · s²); averages at the end, where the recipe
has any, are taken too. What belongs to gates is not there: neither their noise nor the units'. Inputs are
not cut in *small dense*, nor in *magnitude* unless asked for, and residual sections stay. Numbers below 1e-38
count as zero.
"""

from bayesprune.baseline.networks import accepted, dense, from_scratch, magnitude, small_dense
from bayesprune.baseline.plan import Limit, Plan, Rival

__all__ = ["Limit", "Plan", "Rival", "accepted", "dense", "from_scratch", "magnitude", "small_dense"]
