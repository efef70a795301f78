"""One process at a time in a folder: a lock that dies with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from pathlib import Path
from types import TracebackType

from bayesprune.errors import LockWarning, RunFolderError

LOCK = ".lock"
_HELD: set[int] = set()
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


class FolderLock:
    """Sole use of a folder, as a context; whoever comes second is refused at once.

    It is the operating system's lock on a file ``.lock`` in the folder, so that nothing of it outlives its
    holder, however that ends: a file that a killed process left is simply taken over.

    Args:
        folder: made if missing.

    Raises:
        RunFolderError: another process, or another thread of this one, works there; it is named.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with FolderLock(Path(folder)):
        ...         try:
        ...             FolderLock(Path(folder)).__enter__()
        ...         except RunFolderError:
        ...             print("refused")
        refused
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LOCK
        self._handle: int | None = None

    def __enter__(self) -> FolderLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        while self._handle is None:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._take(handle)
                if _is_at(handle, self.path):  # else its last holder has just deleted it: once more
                    self._handle = handle
            finally:
                if self._handle is None:
                    os.close(handle)
        _HELD.add(self._handle)
        with contextlib.suppress(OSError):  # a full disk: the lock holds, only its message is poorer
            os.ftruncate(self._handle, 0)
            os.write(self._handle, str(os.getpid()).encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        handle, self._handle = self._handle, None
        if handle is None or handle not in _HELD:  # in a forked child the lock is not held
            return
        _HELD.discard(handle)
        with contextlib.suppress(OSError):  # deleted while it is held: nobody can hold it meanwhile
            self.path.unlink()
        os.close(handle)

    def _take(self, handle: int) -> None:
        try:
            _lock(handle)
        except OSError as problem:
            if problem.errno in _TAKEN:
                holder = self._holder()
                raise RunFolderError(
                    f"{self.folder}: {holder} works in this folder now, and is left alone. Wait until it has "
                    "ended, stop it, or choose another folder."
                ) from None
            warnings.warn(
                f"{self.folder}: its file system knows no locks ({problem.strerror}). Make sure that no "
                "other process works in this folder.",
                LockWarning,
                stacklevel=4,
            )

    def _holder(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            number = int(self.path.read_bytes()[:20])
            return "this process" if number == os.getpid() else f"process {number}"
        return "another process"


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        """Lock a byte far behind the content, which stays readable."""
        os.lseek(handle, 1 << 30, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _forget() -> None:
        """In a forked child, such as a DataLoader's worker: it must not keep its dead parent's locks."""
        for handle in _HELD:
            with contextlib.suppress(OSError):
                os.close(handle)
        _HELD.clear()

    os.register_at_fork(after_in_child=_forget)
