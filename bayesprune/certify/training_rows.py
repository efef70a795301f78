"""Which rows were trained on, by digests: kept beside a run, compared with rows of any layout or type."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from bayesprune.errors import CertificateError, DataError
from bayesprune.files import write_atomically
from bayesprune.rows import Form, Inputs, rows_from, rows_of_loader
from bayesprune.rows.digests import TYPES, Digests, coarsest, digests_in, numbers_of

HALVES = {"float16", "bfloat16"}


@dataclass(frozen=True)
class Compared:
    """Which of some rows were trained on.

    Attributes:
        found: (rows,), bool.
        type: that the numbers were compared in.
    """

    found: npt.NDArray[np.bool_]
    type: str


@dataclass(frozen=True)
class TrainingRows:
    """Which rows were trained on, known by their digests: enough to find a row that is used twice.

    Attributes:
        digests: name of a type → (rows,), uint64, sorted: of the rows' numbers in that type. The types are
            the coarsest ones, up to the first that holds every number exactly.
        shape: of a row.
        type: that the rows had.
    """

    digests: Mapping[str, Digests]
    shape: tuple[int, ...]
    type: str

    @staticmethod
    def of(rows: Any, target: str = "labels") -> TrainingRows:
        """Of the training rows.

        Args:
            rows: what ``fit`` takes: a tensor or a numpy array of inputs, a pair (x, y), a data set, a
                loader; of a loader every row that it may deal. Or their digests, as they are.
            target: under which name rows that are a dict of inputs and labels have the labels.

        Raises:
            CertificateError: no rows, or of unequal shapes.
        """
        if isinstance(rows, TrainingRows):
            return rows
        try:
            with torch.random.fork_rng(devices=[]):
                known = rows_from(_whole(rows), "trained_on", targets=False, form=Form(target=target))
                return _of_blocks(known.inputs(8192))
        except DataError as problem:
            raise CertificateError(str(problem)) from problem

    def __len__(self) -> int:
        return len(next(iter(self.digests.values())))

    def compared(self, x: Inputs) -> Compared:
        """Which of these rows were trained on, in the coarsest type that holds one of the two sets exactly.

        Args:
            x: (rows, ...).

        Raises:
            CertificateError: the two cannot be compared: their rows have other numbers, another order of
                them, or two types neither of which holds the other's.
        """
        numbers = numbers_of(x)
        shape, type_ = _form(x)
        if math.prod(self.shape) != math.prod(shape):
            raise CertificateError(
                f"The training rows have {math.prod(self.shape):,} numbers each, {self.shape}, and the "
                f"calibration rows {math.prod(shape):,}, {shape}, so that it cannot be told whether they "
                "were trained on. Give both as the network takes them."
            )
        exact = {coarsest(numbers), list(self.digests)[-1]}
        name = next(name for name in TYPES if name in exact)
        found = Compared(np.isin(digests_in(numbers, name), self.digests[name]), name)
        if not found.found.any():
            self._check_comparable(shape, type_)
        return found

    def _check_comparable(self, shape: tuple[int, ...], type_: str) -> None:
        """That none was found must mean that none is there."""
        mine, theirs = ([size for size in sizes if size != 1] for sizes in (self.shape, shape))
        if mine != theirs and len(mine) > 1 and len(theirs) > 1:
            raise CertificateError(
                f"The training rows have shape {self.shape} and the calibration rows {shape}: in which order "
                "their numbers stand cannot be told, nor whether they were trained on. Give both in one "
                "layout."
            )
        if {self.type, type_} == HALVES:
            raise CertificateError(
                "The training rows are in one half precision and the calibration rows in the other "
                f"({self.type}, {type_}), whose roundings cannot be compared. Give both in one type."
            )

    def among(self, x: Inputs) -> npt.NDArray[np.bool_]:
        """(rows,), whether each of these rows was trained on; see ``compared``."""
        return self.compared(x).found

    def write(self, path: Path) -> None:
        """Write the digests as safetensors, eight bytes a row and type."""
        content = {name: torch.from_numpy(d.view(np.int64).copy()) for name, d in self.digests.items()}
        content["shape"] = torch.tensor(self.shape, dtype=torch.int64)
        content["type"] = torch.tensor(list(self.type.encode()), dtype=torch.uint8)
        write_atomically(path, tensors_to_bytes(content))

    @staticmethod
    def read(path: Path) -> TrainingRows:
        """Read what ``write`` wrote.

        Raises:
            CertificateError: the file is missing or damaged, or of a version that mixed a row's layout into
                its digest.
        """
        try:
            content = tensors_from_bytes(path.read_bytes())
        except (OSError, SafetensorError, ValueError, RuntimeError, KeyError, TypeError) as problem:
            raise CertificateError(
                f"{path}: cannot be read as digests of training rows ({problem}). It is missing, truncated "
                "or was changed."
            ) from None
        if set(content) == {"digests"}:
            raise CertificateError(
                f"{path}: was written by an older bayesprune, whose digests are of a row's type and layout "
                "too, and miss a row in another. Run the program again; or certify in Python, with "
                "trained_on= the training rows."
            )
        wrong = _wrong(content)
        if wrong:
            raise CertificateError(
                f"{path}: is no file of digests of training rows, or was changed: {'; '.join(wrong)}."
            )
        kind = bytes(content["type"].tolist()).decode("ascii", "replace")
        digests = {name: content[name].numpy().view(np.uint64) for name in TYPES if name in content}
        return TrainingRows(digests, tuple(content["shape"].tolist()), kind)


def _whole(rows: Any) -> Any:
    """What a loader may deal, over all epochs: not only the whole batches, or the draws, of one pass."""
    if not isinstance(rows, DataLoader) or isinstance(rows.dataset, IterableDataset):
        return rows
    if type(rows.batch_sampler) is not BatchSampler:
        return rows
    sampler = None if rows_of_loader(rows, "trained_on").sampled else rows.sampler
    return DataLoader(rows.dataset, rows.batch_size, sampler=sampler, collate_fn=rows.collate_fn)


def _form(x: Inputs) -> tuple[tuple[int, ...], str]:
    """Shape of a row, and type; of several tensors that of all their numbers."""
    x = x if isinstance(x, Tensor) else numbers_of(x)
    return tuple(x.shape[1:]), str(x.dtype).removeprefix("torch.")


def _of_blocks(blocks: Iterable[Inputs]) -> TrainingRows:
    digests: dict[str, list[Digests]] = defaultdict(list)
    forms: set[tuple[tuple[int, ...], str]] = set()
    exact = next(iter(TYPES))
    for x in blocks:
        forms.add(_form(x))
        if len(forms) > 1:
            told = " and ".join(f"{shape} of {type_}" for shape, type_ in sorted(forms))
            raise CertificateError(f"trained_on: rows of unequal shapes or types, {told}: give them in one.")
        numbers = numbers_of(x)
        exact = max(exact, coarsest(numbers), key=list(TYPES).index)
        for name in _up_to("float32" if exact != "float64" else exact):
            digests[name].append(digests_in(numbers, name))
    (shape, type_), *_ = forms
    return TrainingRows(
        {name: np.sort(np.concatenate(digests[name])) for name in _up_to(exact)}, shape, type_
    )


def _up_to(name: str) -> list[str]:
    return list(TYPES)[: list(TYPES).index(name) + 1]


def _wrong(content: Mapping[str, Tensor]) -> list[str]:
    """What is not as ``TrainingRows.write`` has it."""
    names = [name for name in TYPES if name in content]
    expected = {"shape": torch.int64, "type": torch.uint8, **dict.fromkeys(names, torch.int64)}
    wrong = [f"it has no {name}" for name in ("shape", "type") if name not in content]
    wrong += [f"{name!r:.40} is unknown" for name in content if name not in expected]
    wrong += [
        f"{name} is {tuple(content[name].shape)} of {content[name].dtype}"
        for name, dtype in expected.items()
        if name in content and (content[name].ndim != 1 or content[name].dtype != dtype)
    ]
    if wrong:
        return wrong
    if not names or names != _up_to(names[-1]):
        wrong.append("digests of some types are missing")
    if len({len(content[name]) for name in names}) > 1 or (names and not len(content[names[0]])):
        wrong.append("there are none, or unequal numbers of them")
    if bool((content["shape"] < 0).any()) or len(content["type"]) > 20:
        wrong.append("its shape or type is none")
    return wrong
