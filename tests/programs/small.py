"""A small run: a few rows, and a schedule in which gates are decided within a hundred steps."""

import bayesprune as bp

ROWS, EPOCHS, BATCH_SIZE = 300, 12, 30
FAST = {
    "gates": bp.GateSteps(learning_rate=0.5, momentum=0.5, clip=1.0, every=1),
    "shrink": bp.Shrink(every=5),
    "warmup": 0.1,
    "ramp": 0.3,
    "decide": 0.6,
}
