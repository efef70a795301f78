"""What papers report on MNIST, with what they kept, which epoch they report, and whether there is code.

Sizes are computed from the architectures, weights alone, so that all rows are counted alike. *Best* is the
lowest test error of all epochs, *last* that of the last one: Evci et al. (arXiv 1911.11134, appendix B) say
that the methods they compare with track the test error in training and report the best, and give both for
their own, which differ by 0.04 and 0.12 points. ``None`` is a paper of which nobody says it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MLP, MLP_SBP, MLP_JANTRE = (784, 300, 100), (784, 500, 300), (784, 400, 400)
CAFFE = (20, 50, 800, 500)
CLASSES = 10
NO_CODE = "no code of this network is public"


@dataclass(frozen=True)
class Published:
    """One row of a paper.

    Attributes:
        method: as its authors call it.
        dense: units of each layer before pruning, inputs first; of LeNet-5-Caffe filters, filters, flattened
            features, hidden units.
        kept: as many of each were kept.
        error: test error, percent.
        epoch: which one that is of; None where the paper does not say.
        source: the paper.
        code: what of it is public.
        edges: share of the kept layers' weights that are not zero, where those are pruned too.
        last: test error at the last epoch, where both are given.
    """

    method: str
    dense: tuple[int, ...]
    kept: tuple[int, ...]
    error: float
    epoch: Literal["best", "last"] | None
    source: str
    code: str = NO_CODE
    edges: float | None = None
    last: float | None = None

    @property
    def parameters_percent(self) -> float:
        """Weights that are left, of the dense network's."""
        count = weights_of_caffe if self.dense == CAFFE else weights_of
        return 100 * (self.edges or 1.0) * count(self.kept) / count(self.dense)

    @property
    def macs_percent(self) -> float:
        """Multiply-accumulates of a row that are left, of the dense network's."""
        count = macs_of_caffe if self.dense == CAFFE else weights_of
        return 100 * (self.edges or 1.0) * count(self.kept) / count(self.dense)

    @property
    def architecture(self) -> str:
        """``97-71-33``."""
        return "-".join(map(str, self.kept))


def weights_of(widths: Sequence[int]) -> int:
    """Weights, without biases, of linear layers and the classes behind: a row's multiply-accumulates as well.

    Args:
        widths: inputs and hidden units.

    Example:
        >>> weights_of((784, 300, 100))
        266200
    """
    return sum(a * b for a, b in itertools.pairwise((*widths, CLASSES)))


def weights_of_caffe(widths: Sequence[int]) -> int:
    """Weights, without biases, of LeNet-5-Caffe.

    Args:
        widths: filters, filters, flattened features, hidden units.

    Example:
        >>> weights_of_caffe((20, 50, 800, 500))
        430500
    """
    first, second, features, hidden = widths
    return 25 * first + 25 * first * second + (features + CLASSES) * hidden


def macs_of_caffe(widths: Sequence[int]) -> int:
    """Multiply-accumulates of one row of 28 × 28 pixels, of LeNet-5-Caffe.

    Args:
        widths: filters, filters, flattened features, hidden units.

    Example:
        >>> macs_of_caffe((20, 50, 800, 500))
        2293000
    """
    first, second, features, hidden = widths
    return 24 * 24 * 25 * first + 8 * 8 * 25 * first * second + (features + CLASSES) * hidden


_VIB = "Dai et al. 2018, arXiv 1802.10399"
_L0 = "Louizos, Welling & Kingma 2018, arXiv 1712.01312"
_BC = "Louizos, Ullrich & Welling 2017, arXiv 1705.08665"
_SBP = "Neklyudov et al. 2017, arXiv 1705.07283"
_RIGL = "Evci et al. 2020, arXiv 1911.11134"
_GD = "Srinivas & Babu 2016, arXiv 1611.06791, as in arXiv 1705.08665"
_SVD = "Molchanov et al. 2017, arXiv 1701.05369, as in arXiv 1705.08665"
_JANTRE = "Jantre, Bhattacharya & Maiti, spike-and-slab shrinkage"
_L0_CODE = "code of LeNet-5 only"
_BC_CODE = "an example of GNJ, with thresholds set by hand"

ON_MLP = (
    Published("VIBNet", MLP, (97, 71, 33), 1.6, "best", _VIB, "code of VGG only"),
    Published("L0, per layer", MLP, (266, 88, 33), 1.8, "best", _L0, _L0_CODE),
    Published("L0", MLP, (219, 214, 100), 1.4, "best", _L0, _L0_CODE),
    Published("BC-GNJ", MLP, (278, 98, 13), 1.8, "best", _BC, _BC_CODE),
    Published("BC-GHS", MLP, (311, 86, 14), 1.8, "best", _BC),
    Published("Sparse VD", MLP, (512, 114, 72), 1.8, "best", _SVD, "edges only"),
    Published("RigL", MLP, (408, 100, 69), 1.44, "best", _RIGL, "public", edges=0.13, last=1.48),
    Published("RigL+", MLP, (375, 62, 51), 1.57, "best", _RIGL, "public", edges=0.114, last=1.69),
    Published("SBP", MLP_SBP, (245, 160, 55), 1.55, "best", _SBP, "LeNet-5's filters only"),
    Published("Sparse VD, in SBP's table", MLP_SBP, (537, 217, 130), 1.57, "best", _SBP, "edges only"),
    Published("SSL, in SBP's table", MLP_SBP, (434, 174, 78), 1.49, "best", _SBP),
)
ON_LENET5 = (
    Published("BC-GHS", CAFFE, (5, 10, 76, 16), 1.0, "best", _BC),
    Published("BC-GNJ", CAFFE, (8, 13, 88, 13), 1.0, "best", _BC, _BC_CODE),
    Published("SBP", CAFFE, (3, 18, 284, 283), 0.86, "best", _SBP, "filters only"),
    Published("GD", CAFFE, (7, 13, 208, 16), 1.1, None, _GD),
    Published("L0, per layer", CAFFE, (9, 18, 65, 25), 1.0, "best", _L0, "public"),
    Published("L0", CAFFE, (20, 25, 45, 462), 0.9, "best", _L0, "public"),
    Published("group lasso", CAFFE, (3, 12, 192, 500), 1.0, None, "Wen et al. 2016, arXiv 1608.03665"),
    Published("Sparse VD", CAFFE, (17, 32, 329, 75), 0.75, "best", _SVD, "edges only"),
)
ON_SPIKE_SLAB = (
    Published("SS-GHS", MLP_JANTRE, (784, 25, 15), 2.70, None, _JANTRE, "none by the authors was found"),
)
