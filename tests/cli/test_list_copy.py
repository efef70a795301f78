import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bayesprune
from bayesprune.programs import find


def test_list_names_and_describes_everything(cli: Any) -> None:
    done = cli("list")
    assert done.code == 0
    for name in ("lenet5", "lenet_300_100", "svi_shrink"):
        assert f"  {name} " in done.out
        assert find(name).description in done.out
    assert "bayesprune copy" in done.out


def test_copy_hands_out_the_whole_file(cli: Any) -> None:
    done = cli("copy", "lenet5", "my_lenet.py")
    assert done.code == 0
    assert Path("my_lenet.py").read_bytes() == find("lenet5").path.read_bytes()
    assert "bayesprune run ./my_lenet.py" in done.out
    assert "--inference ./svi.py" in cli("copy", "svi_shrink", "svi.py").out


def test_copy_into_a_folder_keeps_the_name(cli: Any) -> None:
    Path("folder").mkdir()
    assert cli("copy", "lenet5", "folder").code == 0
    assert Path("folder/lenet5.py").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lenet5", "mine.py"), "mine.py: exists already"),
        (("lenet5", "none/mine.py"), "there is no folder none"),
        (("lenet5", "mine"), "Write mine.py"),
        (("lenet6", "x.py"), "Did you mean lenet5"),
        (("lenet5",), "Missing argument 'FILE'"),
    ],
)
def test_copy_never_overwrites(cli: Any, files: Any, words: tuple[str, ...], message: str) -> None:
    before = files(Path())
    done = cli("copy", *words)
    assert done.code == 2
    assert message in done.err
    assert files(Path()) == before


def test_a_copy_runs(cli: Any) -> None:
    cli("copy", "lenet5", "my_lenet.py")
    assert cli("run", "./my_lenet.py", "--epochs", "1", "--quiet").code == 0


def test_help_and_version(cli: Any) -> None:
    assert bayesprune.__version__ in cli("--version").out
    for words in ((), ("run",), ("list",), ("copy",), ("export",)):
        done = cli(*words, "--help")
        assert done.code == 0
        assert "Usage: bayesprune" in done.out
    assert "No such command 'prune'" in cli("prune").err


def test_a_reader_that_leaves_early_is_no_error(cli: Any) -> None:
    script = "import sys\nfrom bayesprune.cli import main\nsys.stdin.read()\nsys.exit(main(['list']))"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={"PYTHONPATH": str(Path(bayesprune.__file__).parents[1]), "PATH": ""},
    )  # fmt: skip
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
