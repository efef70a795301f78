"""Random numbers that a DataLoader draws from: kept in checkpoints, so that rows come in the same order."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesprune.errors import CheckpointError

PARTS = ("sampler", "batch_sampler", "dataset")
"""Parts of a loader, and of these parts, that may hold generators."""
_OWN = (random.Random, np.random.Generator, np.random.RandomState)


class LoaderNoise:
    """The states of all random numbers that the rows' order and augmentation come from.

    Tensors need none: their order follows from seed and epoch. For a DataLoader they are its own
    generators and those of its samplers and dataset, and the global ones of Python and NumPy, from which a
    dataset may draw. PyTorch's global one belongs to the training itself.

    Args:
        train: what ``fit`` was given.
        in_memory: whether all rows are tensors in memory.

    Raises:
        CheckpointError: a part draws from a generator of its own whose state cannot be kept.
    """

    def __init__(self, train: Any, in_memory: bool = False) -> None:
        self._generators: dict[str, torch.Generator] = {}
        self._global = not in_memory
        for place, value in _attributes(train, "train", set()) if self._global else ():
            self._note(place, value)

    def _note(self, place: str, value: Any) -> None:
        if isinstance(value, torch.Generator) and all(value is not g for g in self._generators.values()):
            self._generators[place] = value
        elif isinstance(value, _OWN):
            raise CheckpointError(
                f"{place} is a {type(value).__module__}.{type(value).__name__}, whose state a checkpoint "
                "cannot hold, so that a resumed training would see its rows in another order. Draw from a "
                "torch.Generator there, or from PyTorch's global random numbers; or leave out checkpoint=."
            )

    def states(self) -> dict[str, Tensor]:
        """Name → state, as bytes."""
        found = {place: generator.get_state() for place, generator in self._generators.items()}
        if self._global:
            plain = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False)}
            text = json.dumps(plain, default=lambda array: array.tolist()).encode()
            found["global"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return found

    def check(self, states: Mapping[str, Tensor]) -> None:
        """Make sure that states can be restored; nothing is changed.

        Raises:
            ValueError: they are those of another loader, or of none.
        """
        own = {*self._generators, *(["global"] if self._global else [])}
        if states.keys() != own:
            raise ValueError(
                f"the loader had the generators {sorted(states)}, and has {sorted(own)} now: give the same "
                "DataLoader"
            )
        for place, generator in self._generators.items():
            torch.Generator(generator.device).set_state(states[place])
        if self._global:
            python, numpy = _globals(states["global"])
            random.Random().setstate(python)
            np.random.RandomState().set_state(numpy)

    def restore_(self, states: Mapping[str, Tensor]) -> None:
        """Go on from states that were checked."""
        for place, generator in self._generators.items():
            generator.set_state(states[place])
        if self._global:
            python, numpy = _globals(states["global"])
            random.setstate(python)
            np.random.set_state(numpy)


def _globals(state: Tensor) -> tuple[Any, Any]:
    plain = json.loads(state.numpy().tobytes())
    version, words, gauss = plain["python"]
    numpy = plain["numpy"]
    numpy["state"]["key"] = np.array(numpy["state"]["key"], dtype=np.uint32)
    return (version, tuple(words), gauss), numpy


def _attributes(part: Any, place: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Attributes of a loader, of its samplers and datasets, and of what is inside these."""
    if id(part) in seen or not hasattr(part, "__dict__"):
        return
    seen.add(id(part))
    for name, value in vars(part).items():
        yield f"{place}.{name}", value
    for name in PARTS:
        inner = vars(part).get(name)
        if inner is not None:
            yield from _attributes(inner, f"{place}.{name}", seen)
