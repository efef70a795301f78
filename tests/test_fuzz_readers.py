"""A few changes of every file that is read: none ends in anything but a named error, or is without effect.

All of them, and thousands more with ``BAYESPRUNE_NIGHTLY=1``: ``python benchmarks/fuzz_readers.py``.
"""

import importlib.util
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NIGHTLY = os.environ.get("BAYESPRUNE_NIGHTLY") == "1"
EACH = 600 if NIGHTLY else 24
SLOW = (
    "network, graph", "network, graph, checksums made anew", "checkpoint", "run to resume", "posterior.nc",
    "certificate, printed", "certificate, verified",
)  # fmt: skip
"""They have tests of their own; here they cost seconds."""


def _fuzzer() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("fuzz_readers", BENCHMARKS / "fuzz_readers.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["fuzz_readers"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BENCHMARKS))


fuzzer = _fuzzer()


@pytest.mark.parametrize("name", [n for n in fuzzer.READERS if NIGHTLY or n not in SLOW])
def test_changed_files_end_in_named_errors(name: str) -> None:
    reader = fuzzer.READERS[name]
    ended = list(fuzzer.apart(reader, fuzzer.changes(reader, EACH, seed=11)))
    assert len(ended) == EACH
    assert [line for line in ended if line[1] not in fuzzer.RIGHT] == []
    assert sum(how == "named error" for _, how, _ in ended) > 0


@pytest.mark.parametrize(
    ("kind", "content"),
    [("bytes", b"01234567"), ("one bit", b"01234567"), ("length", b"01234567"), ("JSON", b'{"a": [1, 2]}')],
)  # fmt: skip
def test_a_change_is_one(kind: str, content: bytes) -> None:
    changed = [fuzzer.JSON[kind](random.Random(seed), content) for seed in range(40)]
    assert sum(found != content for found in changed) > 20
    assert fuzzer.JSON[kind](random.Random(3), content) == fuzzer.JSON[kind](random.Random(3), content)


def test_what_goes_wrong_is_told_apart(tmp_path: Path) -> None:
    def ended(read: Any, checked: bool = False) -> tuple[str, str]:
        reader = fuzzer.Reader(lambda folder: None, read, {}, checked=checked)
        return tuple(fuzzer.outcome(reader, tmp_path, "whole"))

    def raw(_: Path) -> None:
        raise KeyError("x")

    assert ended(raw)[0] == "raw" and ended(raw)[1].startswith("KeyError test_fuzz_readers.py")
    assert ended(lambda _: "whole") == ("equal", "")
    assert ended(lambda _: "other") == ("as written", "")
    assert ended(lambda _: "other", checked=True) == ("another result", "")
    assert ended(lambda _: "FOUND", checked=True) == ("found", "")


def test_a_process_that_ends_is_counted_and_the_next_change_goes_on() -> None:
    def read(folder: Path) -> str:
        if (folder / "a").read_bytes() != b"abc":
            os._exit(9)
        return "abc"

    reader = fuzzer.Reader(
        lambda folder: (folder / "a").write_bytes(b"abc"), read, {"a": {"change": lambda rng, content: b"x"}}
    )
    ended = list(fuzzer.apart(reader, fuzzer.changes(reader, 3, seed=0)))
    assert [how for _, how, _ in ended] == ["the process ended"] * 3
