"""k-DPP node selection: draws, kernels, the rule."""
