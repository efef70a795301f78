"""Orders in which a run's units go, from what the run left of its posterior."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesprune.certify.paths import Given, Units
from bayesprune.cli import folder as folders
from bayesprune.errors import CertificateError
from bayesprune.files import read_json
from bayesprune.run_shapes import HISTORY, OF_A_SEED, check_seeds, read_checked
from bayesprune.schema import check


def by_inclusion(source: Path) -> Units:
    """Units in the order of their inclusion probabilities, averaged over the run's epochs.

    In the end all that is left has probability 1; how early, and how surely, differs.

    Args:
        source: folder of the run or seed.
    """
    result = read_json(source / folders.RESULT, CertificateError)
    figures = result["seeds"][0] if result.get("seeds") and isinstance(result["seeds"], list) else result
    check(figures, OF_A_SEED, source / folders.RESULT, CertificateError)
    check_seeds([figures], source / folders.RESULT, CertificateError)
    history = read_checked(source / "history.json", HISTORY, CertificateError)["epochs"]
    rows = [epoch["inclusion"] for epoch in history]
    if {len(row) for row in rows} != {sum(figures["dense_architecture"])}:
        raise CertificateError(
            f"{source / 'history.json'}: tells of {len(rows[0])} units in its first epoch, and the network "
            f"has {sum(figures['dense_architecture'])}. It was changed: take --path units."
        )
    inclusion = torch.tensor(rows, dtype=torch.float64)
    parts = inclusion.split(figures["dense_architecture"], dim=1)
    table = {name: part.mean(0)[part[-1] > 0.5] for name, part in zip(figures["groups"], parts, strict=True)}
    return Units(_Kept(table, "inclusion probability over the epochs"))


def by_evidence(source: Path) -> Units:
    """Units in the order of the nats by which what they save of the training rows passes their price.

    Args:
        source: folder of the run or seed.
    """
    from bayesprune.posterior.evidence import EVIDENCE, read_evidence  # here: ArviZ takes long to import

    found = read_evidence(source / EVIDENCE)
    margin = torch.from_numpy(found.margin.copy())
    table = {str(name): margin[torch.from_numpy(found.group == name)] for name in dict.fromkeys(found.group)}
    return Units(_Kept(table, "evidence above price"))


ORDERS: dict[str, Callable[[Path], Units]] = {"posterior": by_inclusion, "evidence": by_evidence}


class _Kept(Given):
    """Scores of the groups that the pruned network still has, of the size that they have there."""

    def scores(self, subject: Any, seed: int = 0) -> dict[str, Tensor]:
        """The table, restricted to groups of the same name and size."""
        sizes = {group.name: group.size for group in subject.groups}
        found = {n: s for n, s in self.table.items() if sizes.get(n) == len(s)}
        if not found:
            raise CertificateError(
                f"None of the run's groups ({', '.join(self.table)}) is a group of the pruned network "
                f"({', '.join(sizes)}): take --path units."
            )
        return found
