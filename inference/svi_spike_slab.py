"""SVI for spike-and-slab units whose weights have a Gaussian posterior and a prior scale each.

The weights' divergence comes in over the first part of the training, since a scale that is learnt from
weights that have seen nothing is zero; gates move by the curved estimator. A hard Concrete draw, as of the
published settings (``svi_spike_slab_published``), sees next to nothing of what an open unit saves, since its
weights have adapted to it: with the same prior it leaves one unit a layer on the digits (``bayesprune run
lenet_300_100_spike_slab --data digits --inference svi_spike_slab_published``).
"""

from dataclasses import replace

import bayesprune as bp

LEARNING_RATE = 3e-3
WEIGHTS_RAMP = 0.2  # of the training, in which the weights' divergence comes in
WARMUP, RAMP, DECIDE = 0.1, 0.3, 0.6
AVERAGING = 0.3
FEW_ROWS, COLD = 10_000, 0.1  # a mean-field posterior of weights says less than it costs: a cold one


def infer(
    gated, train, *, epochs, batch_size, seed, recipe, device, checkpoint, resume, progress, validation=None
):
    """Fit a model whose weights have a Gaussian posterior; units are removed as their gates die."""
    recipe = replace(
        recipe,
        estimator="curved",
        learning_rate=LEARNING_RATE,
        compact_learning_rate=LEARNING_RATE,
        weights_ramp=WEIGHTS_RAMP,
        temperature=COLD if len(train.x) < FEW_ROWS else 1.0,
        warmup=WARMUP,
        ramp=RAMP,
        decide=DECIDE,
        averaging=AVERAGING,
    )
    return bp.fit(
        gated,
        (train.x, train.y),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        recipe=recipe,
        device=device,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
        validation=validation,
    )
