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

MOBILE = {
    "stem_conv": 32, "blocks_0_narrow_conv": 16, "blocks_1_narrow_conv": 24, "blocks_3_narrow_conv": 32,
    "blocks_6_narrow_conv": 64, "blocks_10_narrow_conv": 96, "blocks_13_narrow_conv": 160,
    "blocks_16_narrow_conv": 320, "last_conv": 1280, "layers": 10,
    **{
        f"blocks_{block}_expand_conv": 6 * channels
        for block, channels in enumerate((16, 24, 24, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3), start=1)
    },
}  # fmt: skip
ANY_NETWORK = {
    "mobilenet_v2": MOBILE,
    "resnet18": {
        "conv": 64, "stage1_0_conv1": 64, "stage1_1_conv1": 64, "layers": 8,
        **{
            f"stage{stage}_{convolution}": width
            for stage, width in ((2, 128), (3, 256), (4, 512))
            for convolution in ("0_conv1", "0_conv2", "1_conv1")
        },
    },
    "resnet20_cifar": {
        "conv": 16, "stage1_0_conv1": 16, "stage1_1_conv1": 16, "stage1_2_conv1": 16,
        "stage2_0_conv1": 32, "stage2_0_conv2": 32, "stage2_1_conv1": 32, "stage2_2_conv1": 32,
        "stage3_0_conv1": 64, "stage3_0_conv2": 64, "stage3_1_conv1": 64, "stage3_2_conv1": 64, "layers": 9,
    },
    "text_classifier": {
        "blocks_0_out": 32, "blocks_0_qkv": 4, "blocks_0_fc1": 64, "blocks_1_qkv": 4, "blocks_1_fc1": 64,
        "layers": 4,
    },
    "vgg16_cifar": {
        f"conv{stage}_{number}": width
        for stage, width, count in ((1, 64, 2), (2, 128, 2), (3, 256, 3), (4, 512, 3), (5, 512, 3))
        for number in range(1, count + 1)
    },
    "vit_small": {
        "patches": 64, "layers": 8,
        **{f"blocks_{block}_attention_qkv": 4 for block in range(4)},
        **{f"blocks_{block}_fc1": 128 for block in range(4)},
    },
}  # fmt: skip
"""Programs that are too deep for a whole run in a test, or whose networks are no chains → their groups."""
