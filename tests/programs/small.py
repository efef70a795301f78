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

ANY_NETWORK = {
    "resnet20_cifar": {
        "conv": 16, "stage1_0_conv1": 16, "stage1_1_conv1": 16, "stage1_2_conv1": 16,
        "stage2_0_conv1": 32, "stage2_0_conv2": 32, "stage2_1_conv1": 32, "stage2_2_conv1": 32,
        "stage3_0_conv1": 64, "stage3_0_conv2": 64, "stage3_1_conv1": 64, "stage3_2_conv1": 64,
    },
}  # fmt: skip
"""Programs that are too deep for a whole run in a test, or whose networks are no chains → their groups."""
