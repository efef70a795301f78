"""SVI for spike-and-slab units as published: hard Gumbel-sigmoid gates, Gaussian weights throughout.

The settings are those of Jantre, Bhattacharya & Maiti's public code where it has them: temperature 0.5 with
hard forward draws, inclusion 0.99 and posterior scale softplus(−6) to begin with (the last two are the
model's).
"""

from dataclasses import replace

import bayesprune as bp

TEMPERATURE = 0.5
LEARNING_RATE = 3e-3
WARMUP, RAMP, DECIDE = 0.4, 0.3, 0.8  # weights' scales settle first: until then every weight costs too much


def infer(
    gated, train, *, epochs, batch_size, seed, recipe, device, checkpoint, resume, progress, validation=None
):
    """Fit a model whose weights have a Gaussian posterior; units are removed as their gates die."""
    recipe = replace(
        recipe,
        estimator=bp.svi.Concrete(temperature=TEMPERATURE, hard=True),
        gates=recipe.gates or bp.GateSteps(),
        learning_rate=LEARNING_RATE,
        compact_learning_rate=LEARNING_RATE,
        warmup=WARMUP,
        ramp=RAMP,
        decide=DECIDE,
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
