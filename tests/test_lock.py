"""One at a time in a folder: the second is refused at once, and nothing of a dead holder is left."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bayesprune.errors import LockWarning, RunFolderError
from bayesprune.lock import LOCK, FolderLock

HOLD = """
import os, sys, time
from pathlib import Path
from bayesprune.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    born, said = os.pipe()
    child = os.fork() if sys.argv[2] == "fork" else 1
    if child == 0:
        os.write(said, b".")  # what is done in a child at its birth is done
        time.sleep(60)
    if sys.argv[2] == "fork":
        os.read(born, 1)
    print(child, flush=True)
    time.sleep(60)
"""


def test_a_second_user_is_refused_by_name_until_the_first_has_left(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "new"):
        with pytest.raises(RunFolderError, match=r"new: this process works in this folder now"):
            FolderLock(tmp_path / "new").__enter__()
        with FolderLock(tmp_path):  # another folder is free
            pass
    assert list((tmp_path / "new").iterdir()) == []
    with FolderLock(tmp_path / "new"):
        pass


def test_an_error_inside_leaves_it_free(tmp_path: Path) -> None:
    with pytest.raises(KeyError), FolderLock(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_killed_holder_leaves_no_lock_even_where_its_children_live_on(tmp_path: Path, how: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), how], env=environment, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(RunFolderError, match=f"process {holder.pid} works"):
                FolderLock(tmp_path).__enter__()
            holder.kill()
            holder.wait()
            assert (tmp_path / LOCK).exists()
            with FolderLock(tmp_path):
                pass
            assert not (tmp_path / LOCK).exists()
        finally:
            holder.kill()
            if how == "fork":
                os.kill(child, signal.SIGKILL)


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    inside, most, refused = [0], [0], []

    def work() -> None:
        for _ in range(100):
            try:
                with FolderLock(tmp_path):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
            except RunFolderError as problem:
                refused.append(problem)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("bayesprune.lock._lock", fail)
    with pytest.warns(LockWarning, match="knows no locks"), FolderLock(tmp_path):
        pass
