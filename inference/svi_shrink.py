"""SVI that shrinks the network as its gates die: warm-up, selection with removal, the compact network."""

import bayesprune as bp


def infer(
    gated, train, *, epochs, batch_size, seed, recipe, device, checkpoint, resume, progress, validation=None
):
    """Fit a gated model to ``train`` (x, y); what it gives back holds the small network and its history."""
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
