"""Exact enumeration of at most a dozen gates: the oracle that other inferences are held against.

Every step sums over all 2^K gate configurations instead of drawing some, so gradients of gates and weights
are exact for the batch; with batch_size = rows they are exact for the data set.
"""

from dataclasses import replace

import bayesprune as bp


def infer(
    gated, train, *, epochs, batch_size, seed, recipe, device, checkpoint, resume, progress, validation=None
):
    """Fit a gated model of at most 12 units; a larger one gets an error that says so."""
    return bp.fit(
        gated,
        (train.x, train.y),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        recipe=replace(recipe, estimator="enumeration"),
        device=device,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
        validation=validation,
    )
