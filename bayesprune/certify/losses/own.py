"""A loss of your own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bayesprune.certify.losses.protocol import Loss
from bayesprune.errors import CertificateError


class OwnLoss(Loss):
    """Any function of outputs with one value in [0, 1] a row.

    A certificate names it, but cannot hold its code: whoever verifies gives the same function again.

    Args:
        function: ``(outputs, targets) -> (rows,)``, or ``(outputs, targets, reference_outputs) -> (rows,)``
            where ``comparing``; targets are None where they were not given.
        name: as the certificate calls it.
        labelled: whether targets are needed.
        comparing: whether it also takes the reference network's outputs.
        zero_one: whether every value is 0 or 1, so that the binomial p-value is exact.

    Raises:
        CertificateError: when it is computed: values outside of [0, 1], not finite, not one a row, or other
            than 0 and 1 though ``zero_one`` says so.

    Example:
        >>> import torch
        >>> far = OwnLoss(lambda y_hat, y: ((y_hat[:, 0] - y).abs() / 10).clamp(max=1), "distance / 10")
        >>> y_hat, y = torch.tensor([[1.0], [20.0]]), torch.tensor([2.0, 0.0])
        >>> far.scores(y_hat, torch.empty(0), y).values.round(3)
        array([0.1, 1. ])
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        name: str,
        *,
        labelled: bool = True,
        comparing: bool = False,
        zero_one: bool = False,
    ) -> None:
        self.function, self.name = function, name
        self.labelled, self.comparing, self.zero_one = labelled, comparing, zero_one

    def values(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
        """(rows,), checked."""
        given = (outputs, targets, reference) if self.comparing else (outputs, targets)
        values = self.function(*given)
        if not isinstance(values, Tensor) or values.shape != (len(outputs),):
            found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise CertificateError(
                f"Loss {self.name!r}: returned {found} for {len(outputs)} rows, not a tensor of one value "
                f"each, ({len(outputs)},)."
            )
        if len(values) and not bool(((values >= 0) & (values <= 1)).all()):
            raise CertificateError(
                f"Loss {self.name!r}: its values run from {float(values.min()):g} to "
                f"{float(values.max()):g}; "
                "the guarantee holds for values in [0, 1]. Scale or clamp it."
            )
        if self.zero_one and not bool(((values == 0) | (values == 1)).all()):
            raise CertificateError(
                f"Loss {self.name!r}: has values between 0 and 1, though zero_one=True says that there are "
                "none. Leave zero_one out."
            )
        return values

    def promise(self, level: str) -> str:
        """The bound on its mean."""
        return f"has a mean {self.name!r} of at most {level} (values in [0, 1]) on new rows"

    def to_json(self) -> dict[str, Any]:
        """Its name, and that it is somebody's own."""
        return {
            "name": "own",
            "function": self.name,
            "labelled": self.labelled,
            "comparing": self.comparing,
            "zero_one": self.zero_one,
        }
