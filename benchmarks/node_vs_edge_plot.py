"""The plot of node_vs_edge.py: test error against parameters kept, as pruned and with readers re-weighted."""

import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, NullFormatter
from node_vs_edge_table import by_rule, half_width

from bayesprune.files import write_atomically

NODES = {
    "random node": ("#7f7f7f", "o"),
    "magnitude node": ("#1f77b4", "s"),
    "importance node": ("#9467bd", "D"),
    "Taylor node": ("#8c564b", "v"),
    "DPP node": ("#d62728", "^"),
    "DPP node, median β": ("#e377c2", "<"),
    "posterior node": ("#2ca02c", "P"),
}
EDGES = {"random edge": ("#ff7f0e", "x"), "magnitude edge": ("#17becf", "+"), "DPP edge": ("#bcbd22", "1")}
TITLES = {"error_percent": "without training again", "finetuned_error_percent": "after training on"}


def plot(records: list[dict[str, Any]], dense: list[float], key: str, network: str, file: Path) -> None:
    """Two panels: as cut, and with what stays re-weighted; edges are dashed."""
    table = by_rule(records, key)
    figure, panels = plt.subplots(1, 2, figsize=(10.5, 5.0), sharey=True, layout="constrained")
    titles = ("as cut", "re-weighted by least squares")
    for axes, tail, title in zip(panels, ("", ", fused"), titles, strict=True):
        for name, (colour, marker) in NODES.items():
            _line(axes, table[name + tail], name, colour, marker, "-")
        for name, (colour, marker) in EDGES.items():
            _line(axes, table[name + tail], name, colour, marker, "--")
        axes.axhline(np.mean(dense), color="black", linewidth=0.8, linestyle=":")
        axes.set(xscale="log", yscale="log", xlabel="parameters kept, % of the dense network's", title=title)
        ticks = sorted({record["fraction"] for record in records})
        axes.set_xticks([100 * t for t in ticks], [f"{100 * t:g}" for t in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.invert_xaxis()
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("test error, %")
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panels[0].yaxis.set_minor_formatter(NullFormatter())
    panels[0].set_yticks([t for t in (1, 2, 5, 10, 20, 50, 90) if t > 0.5 * np.mean(dense)])
    panels[0].set_ylim(0.85 * float(np.mean(dense)), 95)
    panels[0].annotate(
        "dense",
        (0.99, np.mean(dense)),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize=8,
    )
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, fontsize=9, loc="outside lower center", ncols=5, frameon=False)
    seeds = len(dense)
    figure.suptitle(f"{network} on MNIST, {TITLES[key]}: means of {seeds} seeds, 95 % intervals", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130, metadata={"Software": None})
    plt.close(figure)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, buffer.getvalue())


def _line(axes, errors: dict[float, np.ndarray], name: str, colour: str, marker: str, style: str) -> None:
    fractions = sorted(errors)
    means = [errors[f].mean() for f in fractions]
    widths = [half_width(errors[f]) if len(errors[f]) > 1 else 0.0 for f in fractions]
    lower = [min(w, 0.95 * m) for w, m in zip(widths, means, strict=True)]
    axes.errorbar(
        [100 * f for f in fractions], means, yerr=[lower, widths], label=name, color=colour, marker=marker,
        linestyle=style, markersize=5, linewidth=1.3, capsize=2,
    )  # fmt: skip
