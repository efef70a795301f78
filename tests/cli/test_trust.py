"""A run's folder may come from anybody: the Python file that it names is run only where the user names it."""

import hashlib
import importlib.util
import json
import py_compile
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.cli.calibration import keep_apart

OWN_DATA = """
from pathlib import Path

from bayesprune.data import digits

Path("executed").touch()

def data():
    return digits()
"""
ALPHA = ("--alpha", "0.98")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network and a true certificate of it, made once."""
    folder = tmp_path_factory.mktemp("evidence")
    left, kept = keep_apart(bp.data.load("digits"), 0.1)
    assert kept is not None
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    found = bp.certify(
        network, (kept.x, kept.y), alpha=0.98, path=[network], trained_on=left.train.x, progress=False
    )
    bp.save(network, folder, kept.x[:1])
    record = found.certificate.record
    record["calibration"]["split"] = {"of": "train", "share": 0.1, "seed": 0}
    (folder / "certificate.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def received(cli: Any, evidence: Path) -> Path:
    """The same, as the folder of a run of a program of its own, which leaves a mark where it is executed."""
    folder = Path("received")
    shutil.copytree(evidence, folder)
    (folder / "net.py").write_text(Path("mine.py").read_text() + OWN_DATA)
    _record(folder, str(folder.resolve() / "net.py"))
    return folder


@cache
def _digest_of_digits() -> str:
    data = bp.data.load("digits")
    tensors = (data.train.x, data.train.y, data.test.x, data.test.y)
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()


def _record(folder: Path, program: str, **more: Any) -> None:
    digest = hashlib.sha256(Path(program).read_bytes()).hexdigest()
    settings = {"program": program, "inference": "svi_shrink", "epochs": 1, "calibration": 0.1, **more}
    record = {
        "format_version": 1,
        "settings": settings,
        "sha256": {
            "model file": digest,
            "data": _digest_of_digits(),
            "inference file": hashlib.sha256(_shipped("svi_shrink").read_bytes()).hexdigest(),
        },
        "versions": {},
    }
    (folder / "run.json").write_text(json.dumps(record))


def _shipped(name: str) -> Path:
    from bayesprune.programs import find

    return find(name).path


COMMANDS = {
    "verify": ("certify", "--verify", "received/certificate.json", "received", "received"),
    "certify": ("certify", "received", *ALPHA, "--out", "made"),
    "resume": ("run", "--resume", "--out", "received", "--quiet"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_program_that_a_folder_names_is_not_executed(cli: Any, received: Path, name: str) -> None:
    done = cli(*COMMANDS[name])
    program = str(received.resolve() / "net.py")
    assert done.code == 2 and not Path("executed").exists(), done.out + done.err
    assert program in done.err and f"--trust-program {program}" in done.err
    assert "would have been executed" in done.err.replace("\n", " ")


@pytest.mark.parametrize("name", ["verify", "certify"])
def test_a_program_that_is_trusted_is(cli: Any, received: Path, name: str) -> None:
    done = cli(*COMMANDS[name], "--trust-program", "received/net.py")
    assert done.code == 0 and Path("executed").exists(), done.out + done.err


def test_a_trusted_run_is_resumed(cli: Any, received: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    monkeypatch.setattr("bayesprune.cli.run._run_seeds", lambda job, *_: begun.append(job))
    done = cli(*COMMANDS["resume"], "--trust-program", "received/net.py")
    assert done.code == 0 and Path("executed").exists(), done.out + done.err
    assert [job.model.path for job in begun] == [received.resolve() / "net.py"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_trusted_file_must_be_the_one_that_was_run(cli: Any, received: Path, name: str) -> None:
    other = Path("other.py")
    other.write_text((received / "net.py").read_text() + "# changed\n")
    done = cli(*COMMANDS[name], "--trust-program", "other.py")
    assert done.code == 2 and not Path("executed").exists()
    assert str(other.resolve()) in done.err and "None of the files" in done.err


def test_what_is_executed_is_the_trusted_file_wherever_the_record_points(cli: Any, received: Path) -> None:
    """The digest is a folder's own word; the file is the user's, and lies where the user keeps it."""
    shutil.copy(received / "net.py", "mine_too.py")
    (received / "net.py").write_text("from pathlib import Path\nPath('planted').touch()\n")
    done = cli(*COMMANDS["verify"], "--trust-program", "mine_too.py")
    assert done.code == 0 and Path("executed").exists() and not Path("planted").exists(), done.err


def test_naming_a_program_that_lies_inside_the_run_is_not_enough(cli: Any, received: Path) -> None:
    words = ("run", "./received/net.py", "--resume", "--out", "received")
    done = cli(*words)
    assert done.code == 2 and not Path("executed").exists()
    assert "lies inside the run's folder" in done.err and "--trust-program" in done.err


def test_a_file_is_compared_before_it_runs(cli: Any, received: Path) -> None:
    """Named by the user, and yet not the one that the run began with."""
    shutil.copy(received / "net.py", "net.py")
    _record(received, str(Path("net.py").resolve()))
    Path("net.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    done = cli("run", "./net.py", "--resume", "--out", "received")
    assert done.code == 2 and not Path("executed").exists()
    assert "changed after the run began" in done.err


def test_an_inference_that_a_folder_names_is_not_executed_either(cli: Any, received: Path) -> None:
    planted = received / "how.py"
    planted.write_text("from pathlib import Path\nPath('executed').touch()\n")
    shutil.copy("mine.py", "net.py")
    _record(received, str(Path("net.py").resolve()), data="digits", inference=str(planted))
    record = json.loads((received / "run.json").read_text())
    record["sha256"]["inference file"] = hashlib.sha256(planted.read_bytes()).hexdigest()
    (received / "run.json").write_text(json.dumps(record))
    done = cli("run", "./net.py", "--resume", "--out", "received")
    assert done.code == 2 and not Path("executed").exists() and "inference file" in done.err


@pytest.mark.parametrize("digests", [None, {}, {"model file": 3}, "none"])
def test_a_record_without_digests_runs_nothing(cli: Any, received: Path, digests: Any) -> None:
    record = json.loads((received / "run.json").read_text())
    record["sha256"] = digests
    (received / "run.json").write_text(json.dumps(record))
    done = cli(*COMMANDS["verify"], "--trust-program", "received/net.py")
    assert done.code == 2 and not Path("executed").exists()
    assert "holds no SHA-256" in done.err or "run.json: sha256" in done.err  # the record's shape comes first


def test_byte_code_beside_a_program_is_never_run_in_its_place(cli: Any, received: Path) -> None:
    """A cache that claims to need no check would run, whatever the source's digest says."""
    planted = Path("planted.py")
    planted.write_text("from pathlib import Path\nPath('executed_from_cache').touch()\n")
    compiled = Path(importlib.util.cache_from_source(str(received / "net.py")))
    py_compile.compile(
        str(planted),
        str(compiled),
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    done = cli(*COMMANDS["verify"], "--trust-program", "received/net.py")
    assert done.code == 0 and Path("executed").exists() and not Path("executed_from_cache").exists()


def test_shipped_programs_and_data_need_no_flag(cli: Any, received: Path) -> None:
    _record(received, str(_shipped("lenet5")))
    record = json.loads((received / "run.json").read_text())
    record["settings"]["program"] = "lenet5"
    (received / "run.json").write_text(json.dumps(record))
    assert cli(*COMMANDS["verify"]).code == 0
    assert cli("certify", "--verify", "received/certificate.json", "received", "digits").code == 0
