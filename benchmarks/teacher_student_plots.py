"""The plots of teacher_student.py."""

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayesprune import theory as th

SHOWN = {
    "random_node": ("random node", "C7", "o"),
    "importance_node": ("importance node, |v|", "C1", "s"),
    "dpp_gram": ("DPP node", "C0", "D"),
    "random_edge": ("random edge", "C2", "^"),
    "magnitude_edge": ("magnitude edge", "C3", "v"),
}


def learning(simulated, equations, path):
    """Learning curves, one panel a scenario, three seeds each."""
    figure = Figure(figsize=(3.5 * len(simulated), 3.4), layout="constrained")
    for index, name in enumerate(simulated):
        ax = figure.add_subplot(1, len(simulated), index + 1)
        th.plot_learning(simulated[name][:3], equations[name][:3], ax)
        ax.set_title(name, fontsize=10)
    figure.suptitle("Learning: simulated students and the equations of their order parameters", fontsize=11)
    figure.savefig(path, dpi=110)


def pruning(scenarios, path):
    """ε against parameters kept: lines from the equations, dots from simulated students, 95 % intervals."""
    figure = Figure(figsize=(3.5 * len(scenarios), 6.4), layout="constrained")
    for column, (name, found) in enumerate(scenarios.items()):
        step = 0.06 * (len(found["pruned"]) + 1) / 6
        for row, way in enumerate(("plain", "fused")):
            ax = figure.add_subplot(2, len(scenarios), row * len(scenarios) + column + 1)
            sizes = [entry["kept"] for entry in found["pruned"]]
            for place, (rule, (label, color, marker)) in enumerate(SHOWN.items()):
                entries = [entry["errors"][rule][way] for entry in found["pruned"]]
                ax.plot(sizes, [e["theory"]["mean"] for e in entries], color=color, linewidth=1, alpha=0.8)
                mean = np.array([e["simulation"]["mean"] for e in entries])
                half = np.array([e["simulation"]["half_width"] for e in entries])
                low = np.minimum(half, 0.9 * mean)  # the axis is logarithmic
                style = {"color": color, "marker": marker, "markersize": 4, "linestyle": "none", "capsize": 2}
                beside = [size + (place - 2) * step for size in sizes]
                ax.errorbar(beside, mean, yerr=[low, half], label=label, **style)
            before = found["unpruned_error"]["simulation"]["mean"]
            ax.axhline(before, color="black", linewidth=0.8, linestyle=":")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set(yscale="log", title=f"{name}, {'re-weighted' if row else 'as pruned'}")
            ax.title.set_fontsize(10)
            ax.set_xlabel(f"size, in units of {found['settings']['inputs'] + 1} parameters")
            if not column:
                ax.set_ylabel("generalisation error ε")
    figure.legend(
        *ax.get_legend_handles_labels(), loc="outside lower center", ncols=len(SHOWN), frameon=False
    )
    figure.suptitle("Lines: theory. Dots: simulation. Dotted: the student before pruning.", fontsize=11)
    figure.savefig(path, dpi=110)


def regimes(found, path):
    """Where random edges beat DPP nodes: log₂ of the errors' ratio over copies and share kept."""
    columns = len(found) // 2
    figure = Figure(figsize=(3.2 * columns, 6), layout="constrained")
    image = None
    for index, (name, panel) in enumerate(found.items()):
        ax = figure.add_subplot(2, columns, index + 1)
        ratio = np.clip(np.array(panel["log2_edge_over_dpp"], float), -1, 1)
        image = ax.imshow(
            ratio, cmap="RdBu_r", norm=TwoSlopeNorm(0, -1, 1), aspect="auto", origin="lower",
            extent=(0, 1, 0.5, len(ratio) + 0.5),
        )  # fmt: skip
        ax.set(title=name, xlabel="share kept, k / K" if index >= columns else None)
        ax.title.set_fontsize(9)
        if not index % columns:
            ax.set_ylabel("copies of each teacher unit, K / M")
    figure.colorbar(image, ax=figure.axes, label="log₂ (random edge / DPP node)", fraction=0.03, pad=0.01)
    figure.suptitle("Blue: random edges beat DPP nodes; red: the reverse (cut off at ±1)", fontsize=11)
    figure.savefig(path, dpi=110)
