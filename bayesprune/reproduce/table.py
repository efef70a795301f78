"""What a table is: of one setting a method, which held-out rows choose, or of all settings, as curves."""

from __future__ import annotations

from dataclasses import dataclass, field

from bayesprune.reproduce.published import Published
from bayesprune.reproduce.setup import Method


@dataclass(frozen=True)
class Table:
    """What is learnt, by whom, and what was published.

    Attributes:
        name: as it is asked for.
        title: a line.
        program: the model file.
        data: name of the data.
        methods: a line each; whom another is fitted to comes before it.
        published: rows of papers.
        most_parameters: a setting is chosen among those that keep no more than this, percent; the smallest
            where there is none.
        held_out: training rows that settings are chosen by: as many, or a share.
        quick_epochs: on the digits, for ``--quick``.
        quick_size: height and width of the digits then.
        note: on what was published, where there is no row of it.
    """

    name: str
    title: str
    program: str
    data: str
    methods: tuple[Method, ...] = field(repr=False)
    published: tuple[Published, ...] = field(default=(), repr=False)
    most_parameters: float = 100.0
    held_out: float = 1 / 12
    quick_epochs: int = 40
    quick_size: int = 28
    note: str = ""


@dataclass(frozen=True)
class Part:
    """A network on a data set.

    Attributes:
        network: its name, short.
        program: the model file.
        data: name of the data.
    """

    network: str
    program: str
    data: str

    @property
    def name(self) -> str:
        """Of its folder: ``mlp-mnist``."""
        return f"{self.network}-{self.data}"


@dataclass(frozen=True)
class Curves:
    """What is learnt, by whom, and how methods are compared.

    Attributes:
        name: as it is asked for.
        title: a line.
        parts: a table each.
        methods: each with several settings; whom others are compared with first.
        shares: parameters, percent, at which errors are compared.
        held_out: share of the training rows that are only scored on.
        size: height and width that images are enlarged to.
        quick_epochs: on the digits.
        note: on what was published.
    """

    name: str
    title: str
    parts: tuple[Part, ...]
    methods: tuple[Method, ...] = field(repr=False)
    shares: tuple[float, ...] = (2.0, 5.0, 10.0, 20.0, 40.0, 70.0, 100.0)
    held_out: float = 0.2
    size: int = 32
    quick_epochs: int = 10
    note: str = ""
