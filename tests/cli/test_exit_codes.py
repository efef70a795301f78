"""Exit codes mean one thing each: 1 is the answer "no", 2 what a user can mend, 70 a fault of the library."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bayesprune.cli import main, streams
from bayesprune.cli import programs as listing
from bayesprune.cli.streams import quoted
from bayesprune.svi.progress import Progress


def _raising(problem: BaseException) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise problem

    return fail


@pytest.mark.parametrize(
    "problem",
    [KeyError("alpha"), TypeError("no"), RuntimeError("inside"), RecursionError("deep"), SystemExit(1),
     EOFError("cut short"), OSError("without a reason")],
    ids=lambda problem: type(problem).__name__,
)  # fmt: skip
def test_a_fault_of_the_library_is_said_to_be_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: BaseException
) -> None:
    monkeypatch.setattr(listing, "available", _raising(problem))
    assert main(["list"]) == 70
    err = capsys.readouterr().err
    assert f"Error: this is a fault of bayesprune {sys.modules['bayesprune'].__version__}" in err
    assert "Please report it" in err and "Traceback" in err and type(problem).__name__ in err


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (OSError(28, "No space left on device", "a/b.nc"), "a/b.nc: No space left on device."),
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "out of memory"),
    ],
)
def test_what_a_user_can_mend_is_2_with_debug_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: Exception, message: str
) -> None:
    monkeypatch.setattr(listing, "available", _raising(problem))
    for words in (["list"], ["--debug", "list"]):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert message in err and ("Traceback" in err) == (len(words) == 2)


def test_sigterm_is_an_interruption_with_its_own_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(listing, "available", lambda kind: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["list"]) == 143
    assert "Interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_run_that_is_terminated_says_how_to_go_on(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOP_AFTER", "2")
    monkeypatch.setenv("STOP_BY", "SIGTERM")
    done = cli("run", "./mine.py", "--inference", "./stopping.py", "--out", "my run;$(x)", "--quiet")
    assert done.code == 143
    assert "--resume --out 'my run;$(x)'" in done.err


class _NoReader(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_an_answer_stands_if_nobody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", _NoReader())
    assert main(["list"]) == 0
    assert main(["--help"]) == 0
    assert main(["list", "--help"]) == 0


def test_a_message_that_nobody_reads_changes_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", _NoReader())
    assert main(["copy", "lenet5", "mine.txt"]) == 2
    assert main(["run", "--epochs", "0"]) == 2


class _Full(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_stdout_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", _Full())
    assert main(["list"]) == 2
    assert "standard output: No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("stream", [_NoReader(), None])
def test_a_training_needs_no_stderr(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    bar = Progress(steps=2, done=0, show=True)
    bar.advance()
    bar.advance()
    bar.close()


def test_the_process_closed_stderr_is_no_file(tmp_path: Path) -> None:
    """Without its stderr the process would give the number 2 to the next file that it opens."""
    code = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(Path(streams.__file__).parent)!r}); from streams import open_all\n"
        "open_all(); file = os.open('a', os.O_CREAT | os.O_WRONLY)\n"
        "print('gone', file=sys.stderr); os.write(2, b'nowhere'); print(file > 2)"
    )
    done = subprocess.run(
        ["sh", "-c", quoted(sys.executable, "-c", code) + " 2>&-"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "True\n")
    assert (tmp_path / "a").read_bytes() == b""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seed", str(2**32)), "'--seed'"),
        (("--seed", str(2**32 - 1), "--seeds", "2"), "the last seed would be 4294967296"),
        (("--threads", "100000"), "'--threads'"),
        (("--epochs", str(10**30)), "'--epochs'"),
        (("--batch-size", str(10**30)), "'--batch-size'"),
    ],
)
def test_numbers_that_nothing_can_take(cli: Any, words: tuple[str, ...], message: str) -> None:
    done = cli("run", "./mine.py", *words)
    assert done.code == 2 and message in done.err and not Path("runs").exists()


@pytest.mark.parametrize("option", ["--out", "--data"])
def test_a_name_that_is_no_utf8_is_found_before_the_training(cli: Any, option: str) -> None:
    name = os.fsdecode(b"caf\xe9")
    try:
        Path(name).mkdir()
    except OSError:
        pytest.skip("this disk takes no such name")
    done = cli("run", "./mine.py", option, name)
    assert done.code == 2
    assert "is no UTF-8" in done.err and "caf\\xe9" in done.err
