"""Outgoing: units that their readers hardly listen to go first."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bayesprune.selection.activations import unit_vectors
from bayesprune.selection.magnitude import Magnitude, summed
from bayesprune.selection.masks import Scores
from bayesprune.selection.rows import inputs_of
from bayesprune.selection.rule import Scored
from bayesprune.selection.subject import Subject


@dataclass(frozen=True, eq=False)
class Outgoing(Scored):
    r"""Importance: the weights that read a unit, and how much it sends through them.

    .. math:: s_u = \sum_{w \in \mathrm{columns}(u)} |w| \quad\text{or}\quad
              s_u = \overline{|a_u|} \sum_{w \in \mathrm{columns}(u)} |w|

    The first is the output-weights norm of He, Fan, Qian, Tan & Yu (2014), Reshaping Deep Neural Network for
    Fast Decoding by Node-Pruning, the importance that Diversity Networks compare with (literature, not
    re-read here).
    The second weighs it by the mean absolute activation.

    Attributes:
        activation: weigh by activations.
        rows: (rows, ...), inputs for that; by default the subject's example.
    """

    activation: bool = False
    rows: Tensor | None = field(default=None, repr=False)

    def scores(self, subject: Subject, seed: int = 0) -> Scores:
        """group → (size,); units that no weight reads (queries and keys) by the norm of their own weights."""
        read = summed(subject, reads=True, power=1.0)
        scores = {**Magnitude(1.0).scores(subject), **read}
        if not self.activation:
            return scores
        vectors = unit_vectors(subject, inputs_of(subject, self.rows, "Outgoing(activation=True)", least=1))
        means = {name: v.abs().mean(1) for name, v in vectors.items()}
        return {name: score * means.get(name, torch.ones(())) for name, score in scores.items()}
