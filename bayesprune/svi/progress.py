"""The progress bar of a fit."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from tqdm import tqdm

from bayesprune.gated import GatedModel


class _Stderr:
    """Stderr for as long as it can be written to: a training goes on without its bar."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Write, if there is a stream with a reader."""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no reader, closed, None
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, likewise."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)  # fileno, isatty: how wide it is


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
            file=_Stderr(),
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
