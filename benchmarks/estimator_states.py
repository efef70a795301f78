"""Networks in the middle of learning, to audit estimators on: gates undecided, deciding, or open."""

import copy
from dataclasses import replace

import torch
from torch import nn

import bayesprune as bp
from bayesprune.programs import load_model
from bayesprune.svi.batches import Batches
from bayesprune.svi.step import Engine

HELD_OUT = 5_000
CPU = torch.device("cpu")
LENETS = {  # state → (epochs of the whole fit, epochs run, q(z = 1) that gates are held at, or None)
    "lenet_300_100": {
        "at 0.5, held": (20, 3, 0.5),
        "at the start of selection": (20, 2, None),
        "in the middle of selection": (20, 6, None),
        "before the decision": (20, 11, None),
        "at 0.99, held": (20, 3, 0.99),
    },
    "lenet5": {"in the middle of selection": (8, 2, None), "at 0.99, held": (8, 1, 0.99)},
}


def held_out_split() -> tuple[bp.data.Split, bp.data.Split]:
    """MNIST's training rows, as lenet_mnist.py --validation splits them; the test rows stay unread."""
    train = bp.data.load("mnist").train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(12345))
    rest, held_out = order[:-HELD_OUT], order[-HELD_OUT:]
    return bp.data.Split(train.x[rest], train.y[rest]), bp.data.Split(train.x[held_out], train.y[held_out])


def lenet_state(name: str, state: str, train: bp.data.Split, seed: int) -> bp.GatedModel:
    """A shipped program as its fit has it after some epochs; gates that are held are drawn, but stay."""
    epochs, run_epochs, held = LENETS[name][state]
    program = load_model(name)
    torch.manual_seed(seed)
    gated, recipe = program.model(train, 10, None), program.recipe
    if held is not None:
        gated.log_odds.data.fill_(torch.logit(torch.tensor(held)))
        recipe = replace(recipe, warmup=recipe.decide, ramp=0.0)
    batches = Batches((train.x, train.y), 128, CPU, seed)
    run = bp.Training(
        copy.deepcopy(gated), steps=epochs * batches.steps, recipe=recipe, seed=seed, rows=batches
    )
    for epoch in range(run_epochs):
        for batch in batches.epoch(epoch):
            run.step_on_([batch])
    assert not run.decided
    return run.gated


def small_state(state: str, seed: int) -> tuple[bp.GatedModel, tuple[torch.Tensor, torch.Tensor]]:
    """Digits as four quarters' brightness, six hidden units: ten gates, weights learnt under them, held."""
    digits = bp.data.load("digits").train
    x = nn.functional.avg_pool2d(digits.x, 14).flatten(1)  # (1437, 4)
    x, y = (x - x.mean(0)) / x.std(0), digits.y
    torch.manual_seed(seed)
    gated = bp.gate(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 10)), x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(20.0)), likelihood=bp.Categorical(rows=len(x)),
    )  # fmt: skip
    levels = {
        "all at 0.5": [0.5] * 10,
        "mixed": torch.linspace(0.05, 0.95, 10).tolist(),
        "all at 0.99": [0.99] * 10,
    }
    gated.log_odds.data = torch.logit(torch.tensor(levels[state]))
    engine = Engine(gated, bp.Recipe(learning_rate=1e-2), seed)
    batches, state_now = Batches((x, y), 128, CPU, seed), replace(engine.init(), moving=False)
    for epoch in range(60):
        for batch in batches.epoch(epoch):
            state_now, _ = engine.step(state_now, batch)
    whole = len(x) // 128 * 128  # batches of one size, so that their plain mean is that over rows
    return gated, (x[:whole], y[:whole])
