"""The progress bar of a fit."""

from __future__ import annotations

import sys

from tqdm import tqdm

from bayesprune.gated import GatedModel


class Progress:
    """Steps done, time left, ELBO, units left per group and multiply-accumulates left, on one line of stderr.

    Args:
        steps: in all.
        done: steps that an earlier run has taken.
        show: False for a silent one.
        label: in front.
    """

    def __init__(self, steps: int, done: int, show: bool, label: str = "fit") -> None:
        self.bar = tqdm(
            total=steps,
            initial=done,
            disable=not show,
            desc=label,
            file=sys.stderr,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.2,
            bar_format="{desc} {percentage:3.0f}% |{bar:12}| {elapsed}<{remaining} {postfix}",
        )

    def advance(self) -> None:
        """One step more."""
        self.bar.update()

    def tell(self, gated: GatedModel, elbo: float | None) -> None:
        """Say how things stand.

        Args:
            gated: the model.
            elbo: nats; None before the first estimate.
        """
        if self.bar.disable:
            return
        units = "-".join(map(str, gated.kept().values()))
        macs = 100 * gated.network.macs() / gated.dense_macs
        value = "…" if elbo is None else f"{elbo:,.0f}"
        self.bar.set_postfix_str(f"ELBO {value} nats, units {units}, MACs {macs:.1f} %", refresh=False)

    def close(self) -> None:
        """End the line."""
        self.bar.close()
