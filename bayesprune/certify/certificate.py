"""The certificate: plain values that say what is guaranteed, and from which it can be recomputed."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bayesprune.certify.shape import CERTIFICATE, FORMAT, FORMAT_VERSION, inconsistent
from bayesprune.errors import CertificateError
from bayesprune.files import read_json, write_json
from bayesprune.schema import MOST_TOLD, check


@dataclass(frozen=True)
class Certificate:
    """What ``certify`` found, as it is written to a file.

    Attributes:
        record: plain values: ``statement``, ``assumes``, ``alpha``, ``delta``, ``loss``, ``p_value``,
            ``rule``, ``calibration`` (rows, SHA-256, what is known of training and of rows that repeat),
            ``reference`` (SHA-256 of all that decides what it computes, parameters, MACs), ``certified``
            (position on the path, or None), ``network`` (the same of the certified one, and which shapes
            changed; or None), ``path`` (of each candidate name, sparsity, numbers held and not zero, risk,
            p-value, coverage, SHA-256 of the weights, recipe; of several risks ``risks`` and ``p_values``
            too), ``order`` (of the tests), ``next`` (the first candidate that failed, and what it would have
            needed), ``versions``; and ``output``, which part of what the networks return is meant, where they
            return several.

    Raises:
        CertificateError: values that are no certificate's; the places are named.
    """

    record: dict[str, Any]

    def __post_init__(self) -> None:
        _check(self.record, "This certificate")

    @property
    def certified(self) -> bool:
        """Whether a network is certified at all."""
        return self.record["certified"] is not None

    @property
    def statement(self) -> str:
        """What is guaranteed, in one sentence."""
        return str(self.record["statement"])

    @property
    def chosen(self) -> dict[str, Any] | None:
        """The certified candidate's entry, or None."""
        return dict(self.record["path"][self.record["certified"]]) if self.certified else None

    def write(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all.

        Args:
            path: file to write.
        """
        write_json(path, self.record)

    @staticmethod
    def read(path: str | Path) -> Certificate:
        """Read a certificate; that it holds is for ``verify`` to say.

        Args:
            path: the file.

        Raises:
            CertificateError: it is missing, no JSON, or no certificate of this version.
        """
        record = read_json(path, CertificateError)
        _check(record, path)
        return Certificate(record)

    def __str__(self) -> str:
        from bayesprune.certify.table import table

        return table(self.record)


def _check(record: dict[str, Any], place: str | Path) -> None:
    found = record.get("format"), record.get("format_version")
    if found == (FORMAT, 1):
        raise CertificateError(
            f"{place}: is of version 1, which does not bind the architecture: it holds hashes of weights, "
            "which a layer that is added to the network leaves as they are. Certify the network again."
        )
    if found != (FORMAT, FORMAT_VERSION):
        raise CertificateError(
            f"{place}: is no certificate of this version: its format is {found[0]!r:.40}, version "
            f"{found[1]!r:.40}, and {FORMAT!r}, version {FORMAT_VERSION}, can be read."
        )
    remedy = "It is damaged, or was changed."
    check(record, CERTIFICATE, place, CertificateError, remedy)
    wrong = inconsistent(record)
    if wrong:
        raise CertificateError(f"{place}: {'; '.join(wrong[:MOST_TOLD])}. {remedy}")


def canonical(record: dict[str, Any]) -> bytes:
    """The bytes that are signed: sorted, without white space, without the signature."""
    unsigned = {key: value for key, value in record.items() if key != "signature"}
    return json.dumps(unsigned, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def versions() -> dict[str, str]:
    """Versions of what computed the certificate, by package."""
    found = {"python": platform.python_version()}
    for package in ("bayesprune", "torch", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
