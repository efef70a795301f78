"""MNIST: found where the user keeps it, else fetched once and checked."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import urllib.error
import urllib.request
import zlib
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from bayesprune.data.dataset import Dataset
from bayesprune.data.folder import load_folder
from bayesprune.errors import DataError
from bayesprune.files import write_atomically
from bayesprune.terminal import bar_hidden

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Of the decompressed files: the .gz files in circulation differ in how they are compressed."""

TIMEOUT_SECONDS = 30
LARGEST = 16 + 60_000 * 28 * 28
"""Bytes of the largest of them: what is longer is none."""


def mnist(data_dir: str | Path | None = None, progress: bool = True) -> Dataset:
    """MNIST: 60,000 training and 10,000 test rows of handwritten digits.

    It is read from ``data_dir``; else from ``$BAYESPRUNE_DATA/mnist``; else from the user's cache
    (``$XDG_CACHE_HOME/bayesprune/mnist``, by default ``~/.cache/bayesprune/mnist``), where it is downloaded
    to (12 MB) if it is not there yet.

    Args:
        data_dir: folder with the four IDX files; nothing is ever downloaded into it.
        progress: show a progress bar while downloading.

    Returns:
        The data set.

    Raises:
        DataError: a file is missing or corrupt, or could not be downloaded.

    Source:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner (1998), Gradient-based learning applied to document
        recognition.
    """
    if data_dir is not None:
        return replace(load_folder(data_dir), name="mnist")
    shared = os.environ.get("BAYESPRUNE_DATA")
    if shared and (Path(shared) / "mnist").is_dir():
        return replace(load_folder(Path(shared) / "mnist"), name="mnist")
    folder = cache_folder()
    missing = [name for name in SHA256 if not (folder / f"{name}.gz").is_file()]
    for name in tqdm(missing, desc="Downloading MNIST", unit="file", disable=bar_hidden(progress)):
        write_atomically(folder / f"{name}.gz", _download(name, progress))
    try:
        return replace(load_folder(folder), name="mnist")
    except DataError as problem:
        raise DataError(f"{problem} (It is a downloaded copy: delete it, and it is fetched again.)") from None


def cache_folder() -> Path:
    """Where downloaded MNIST files are kept.

    Returns:
        ``$XDG_CACHE_HOME/bayesprune/mnist``, by default ``~/.cache/bayesprune/mnist``.

    Raises:
        DataError: there is neither, as for a user without a home.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "bayesprune" / "mnist"
    except RuntimeError as problem:  # no HOME, and a user that the system does not know
        raise DataError(
            f"MNIST is kept in the user's cache, and this user has no home ({problem}). Set XDG_CACHE_HOME, "
            "or say where the files lie: --data-dir (in Python: data_dir=)."
        ) from None


def _download(name: str, progress: bool) -> bytes:
    """The .gz file from the first mirror that has it intact."""
    failures = []
    for mirror in MIRRORS:
        url = f"{mirror}{name}.gz"
        try:
            content = _fetch(url, progress)
            with gzip.open(io.BytesIO(content)) as stream:
                found = hashlib.sha256(stream.read(LARGEST + 1)).hexdigest()
        except (OSError, EOFError, zlib.error, urllib.error.URLError) as problem:
            failures.append(f"{url}: {getattr(problem, 'reason', None) or problem}")
            continue
        if found == SHA256[name]:
            return content
        failures.append(f"{url}: SHA-256 of the content is {found}, not {SHA256[name]}")
    raise DataError(
        f"MNIST is not on this machine, and {name}.gz could not be downloaded:\n"
        + "".join(f"  {failure}\n" for failure in failures)
        + "Without a network: get the four files ("
        + ", ".join(f"{name}.gz" for name in SHA256)
        + ") elsewhere and "
        + "pass their folder with --data-dir (in Python: data_dir=), or set BAYESPRUNE_DATA to a folder "
        + "whose "
        + "subfolder mnist holds them. Or start with --data digits, which needs no download."
    )


def _fetch(url: str, progress: bool) -> bytes:
    chunks = []
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        total = int(response.headers.get("Content-Length") or 0) or None
        name = url.rsplit("/", 1)[1]
        bar = tqdm(
            total=total, desc=name, unit="B", unit_scale=True, leave=False, disable=bar_hidden(progress)
        )
        with bar:
            while chunk := response.read(1 << 16):
                chunks.append(chunk)
                bar.update(len(chunk))
    return b"".join(chunks)
