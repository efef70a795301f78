"""What a certificate's file must hold, declared once; every place that is not of it is named."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bayesprune.schema import Anything, Either, Items, Number, Record, Shape, Table, Text, Truth, nullable

FORMAT, FORMAT_VERSION = "bayesprune certificate", 2
"""Version 1 hashed weights, and not what is computed with them."""


_CONTROL = ("Cc", "Cf", "Cs")
"""Unicode's categories of control signs, invisible ones, and halves of pairs."""


@dataclass(frozen=True)
class Line:
    """Text that can be printed: without the signs that move a terminal's cursor, or hide a part of it."""

    name: str = "printable text"

    def problems(self, value: Any, place: str) -> Iterator[str]:
        """No text, or signs of control."""
        if not isinstance(value, str) or any(unicodedata.category(sign) in _CONTROL for sign in value):
            yield f"{place} is {value!a:.40}, not {self.name}"


@dataclass(frozen=True)
class Hex:
    """Hexadecimal digits.

    Attributes:
        digits: how many; None for any number from 1.
    """

    digits: int | None = None

    @property
    def name(self) -> str:
        """As "64 hexadecimal digits"."""
        return f"{self.digits or 'some'} hexadecimal digits"

    def problems(self, value: Any, place: str) -> Iterator[str]:
        """Other signs, or another number of them."""
        right = isinstance(value, str) and re.fullmatch("[0-9a-f]+", value) is not None
        if not right or self.digits not in (None, len(value)):
            yield f"{place} is {value!a:.40}, not {self.name}"


@dataclass(frozen=True)
class Named:
    """Settings of something that is chosen by its name.

    Attributes:
        known: name → shape of the other settings.
        other: shape where the name is none of those.
    """

    known: Mapping[str, Mapping[str, Shape]]
    other: Shape
    name: str = "an object with a name"

    def problems(self, value: Any, place: str) -> Iterator[str]:
        """No name, or settings that are not those of its name."""
        yield from Record({"name": Line()}).problems(value, place)
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            fields = self.known.get(value["name"])
            shape = self.other if fields is None else Record({"name": Line(), **fields}, closed=True)
            yield from shape.problems(value, place)


_SHA, _SHARE, _COUNT = Hex(64), Number(0, 1), Number(0, whole=True)
_LOW = Number(1e-300, 1 - 1e-16)
_OWN = Table(Either((Truth(), Number(), Line())))
"""Settings of what somebody wrote: plain values, which only their code understands."""

_PLAIN_LOSSES: dict[str, Mapping[str, Shape]] = {
    name: {} for name in ("error", "excess", "new-errors", "disagreement")
}
_OWN_LOSS: Mapping[str, Shape] = {
    "function": Line(), "labelled": Truth(), "comparing": Truth(), "zero_one": Truth(),
}  # fmt: skip
_INNER = Named({**_PLAIN_LOSSES, "own": _OWN_LOSS}, _OWN)
_SELECTIVE: Mapping[str, Shape] = {
    "confidence": _SHARE, "loss": _INNER, "coverage": _SHARE, "by": Text(("candidate", "reference")),
}  # fmt: skip
_OF_CLASS: Mapping[str, Shape] = {"label": _COUNT, "loss": _INNER}
_ONE = {**_PLAIN_LOSSES, "own": _OWN_LOSS, "selective": _SELECTIVE, "of-class": _OF_CLASS}
_RISK = Record({"loss": Named(_ONE, _OWN), "alpha": _LOW}, closed=True)
LOSS = Named({**_ONE, "several": {"risks": Items(_RISK, least=1)}}, _OWN)
P_VALUE = Named({"binomial": {}, "hoeffding-bentkus": {}, "betting": {"delta": _LOW, "seed": _COUNT}}, _OWN)
RULE = Named(
    {
        "fixed-sequence": {},
        "bonferroni": {},
        "split-fixed-sequence": {"share": _LOW, "seed": _COUNT},
        "multi-start": {
            "starts": Either((Number(1, whole=True), Items(_COUNT, least=1))),
            "weights": nullable(Items(Number(1e-300), least=1)),
        },
    },
    _OWN,
)
RECIPE = Either(
    (
        Record(
            {"kind": Text(("weights",)), "scope": Text(("global", "layer")), "share": _SHARE}, closed=True
        ),
        Record({"kind": Text(("units",)), "exclude": Items(Line()), "kept": Table(Hex())}, closed=True),
        Record({"kind": Text(("reference",))}, closed=True),
        Record({}, closed=True),
    )
)
SPLIT = Either(
    (
        Record({"of": Text(("train",)), "share": _SHARE, "seed": _COUNT}, closed=True),
        Record({"of": Text(("test",))}, closed=True),
        Record({}, closed=True),
    )
)
CANDIDATE = Record(
    {
        "name": Line(), "sparsity": Number(-1e300, 1), "parameters": _COUNT, "parameters_left": _COUNT,
        "risk": nullable(Number(-1, 1)), "coverage": _SHARE, "p_value": _SHARE, "certified": Truth(),
        "weights_sha256": _SHA, "recipe": RECIPE,
    },
    {"risks": Items(nullable(Number(-1, 1)), least=1), "p_values": Items(_SHARE, least=1)},
    closed=True,
)  # fmt: skip
_SHAPE_OF_TENSOR = nullable(Items(_COUNT))
_SIZE: Mapping[str, Shape] = {"sha256": nullable(_SHA), "parameters": _COUNT, "macs": nullable(_COUNT)}
CERTIFICATE = Record(
    {
        "format": Text((FORMAT,)),
        "format_version": Number(FORMAT_VERSION, FORMAT_VERSION, whole=True),
        "statement": Line(),
        "assumes": Line(),
        "alpha": _LOW,
        "delta": _LOW,
        "loss": LOSS,
        "p_value": P_VALUE,
        "rule": RULE,
        "calibration": Record(
            {
                "rows": Number(1, whole=True),
                "sha256": _SHA,
                "held_out": Line(),
                "repeats": Text(("none", "once", "each")),
            },
            {"split": SPLIT},
            closed=True,
        ),
        "reference": Record(_SIZE, closed=True),
        "certified": nullable(_COUNT),
        "network": nullable(
            Record({**_SIZE, "shapes": Table(Items(_SHAPE_OF_TENSOR, least=2))}, closed=True)
        ),
        "path_name": Line(),
        "path": Items(CANDIDATE, least=1),
        "order": Items(_COUNT),
        "next": nullable(
            Record({"candidate": _COUNT, "alpha": nullable(_SHARE), "rows": nullable(_COUNT)}, closed=True)
        ),
        "versions": Table(Line()),
        "created": Line(),
    },
    {"signature": Table(Anything()), "output": Either((Number(whole=True), Line()))},
    closed=True,
)


def inconsistent(record: Mapping[str, Any]) -> list[str]:
    """Positions that a record of the right shape names, and that its path does not have.

    Args:
        record: of ``CERTIFICATE``.
    """
    count, best, failed = len(record["path"]), record["certified"], record["next"]
    wrong = []
    if best is not None and best >= count:
        wrong.append(f"certified is {best}, of {count} candidates")
    if (best is None) != (record["network"] is None):
        wrong.append("certified and network do not name the same")
    if failed is not None and failed["candidate"] >= count:
        wrong.append(f"next.candidate is {failed['candidate']}, of {count} candidates")
    wrong += [
        f"order[{i}] is {place}, of {count} candidates"
        for i, place in enumerate(record["order"])
        if place >= count
    ]
    wrong += [
        f"path[{i}].parameters_left is {entry['parameters_left']}, of {entry['parameters']} parameters"
        for i, entry in enumerate(record["path"])
        if entry["parameters_left"] > entry["parameters"]
    ]
    wrong += _several(record)
    if record["network"] is not None:
        wrong += [
            f"network.shapes.{n:.40} is of {len(s)}"
            for n, s in record["network"]["shapes"].items()
            if len(s) != 2
        ]
    return wrong


def _several(record: Mapping[str, Any]) -> Iterator[str]:
    """Where a record of several risks has other numbers or levels, and one of one risk has any at all."""
    several = record["loss"]["name"] == "several"
    risks = record["loss"]["risks"] if several else []
    if several and record["alpha"] != max(risk["alpha"] for risk in risks):
        yield f"alpha is {record['alpha']:g}, and the largest level of its risks is another"
    for i, entry in enumerate(record["path"]):
        for key in ("risks", "p_values"):
            if len(entry.get(key, [])) != len(risks):
                yield f"path[{i}].{key} is of {len(entry.get(key, []))}, of {len(risks)} risks"
