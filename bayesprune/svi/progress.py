"""The progress of a fit: a bar on a terminal, ten lines in a file."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from tqdm import tqdm

from bayesprune.gated import GatedModel
from bayesprune.terminal import is_terminal

LINES = 10
"""Lines of a whole fit where there is no terminal."""


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

    Where stderr is no terminal, a log is what is read: a line for each tenth of the steps, and no bar, which
    would fill it with a line for every fifth of a second.

    Args:
        steps: in all.
        done: steps that an earlier run has taken.
        show: False for a silent one.
        label: in front.
    """

    def __init__(self, steps: int, done: int, show: bool, label: str = "fit") -> None:
        self.stream, self.steps, self.done = _Stderr(), steps, done
        self.label, self.lines = label, show and not is_terminal()
        self.show, self.said = show, ""
        self.next_line = LINES * done // max(steps, 1) + 1
        self.bar = tqdm(
            total=steps,
            initial=done,
            disable=not show or self.lines,
            desc=label,
            file=self.stream,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.2,
            bar_format="{desc} {percentage:3.0f}% |{bar:12}| {elapsed}<{remaining} {postfix}",
        )

    def advance(self) -> None:
        """One step more."""
        self.done += 1
        self.bar.update()

    def say(self, text: str) -> None:
        """Put a line above the bar, once, such as what was chosen unasked.

        Args:
            text: the line; empty where there is nothing to say.
        """
        if self.show and text != self.said:
            self.said = text
            self.bar.clear()
            self.stream.write(f"{self.label}: {text}\n")

    def tell(self, gated: GatedModel, elbo: float | None) -> None:
        """Say how things stand.

        Args:
            gated: the model.
            elbo: nats; None before the first estimate.
        """
        due = self.lines and LINES * self.done >= self.next_line * self.steps
        if self.bar.disable and not due:
            return
        units = "-".join(map(str, gated.kept().values()))
        macs = 100 * gated.network.macs() / gated.dense_macs
        value = "…" if elbo is None else f"{elbo:,.0f}"
        text = f"ELBO {value} nats, units {units}, MACs {macs:.1f} %"
        self.bar.set_postfix_str(text, refresh=False)
        if due:
            self.next_line = LINES * self.done // self.steps + 1
            self.stream.write(f"{self.label} {100 * self.done // self.steps:3d} %, {text}\n")

    def close(self) -> None:
        """End the line."""
        self.bar.close()
