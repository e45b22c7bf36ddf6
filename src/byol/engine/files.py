"""Write a file whole or not at all, and say in one sentence why it could not be written."""

import errno
import os
import re
import shutil
from pathlib import Path

from byol.errors import UserError

_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
_LEFTOVER = re.compile(r"\..+\.\d+\.tmp")  # what `atomic_write` calls its unfinished files


def atomic_write(path: str | Path, data: bytes) -> None:
    """Put `data` at `path`: after a crash at any moment the file is the old one or the new one.

    The bytes go to a temporary name in the same folder, are flushed to disk, and are renamed.
    Raises UserError (disk full, folder not writable) and leaves nothing behind then.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", buffering=0) as file:
            write_all(file.fileno(), data)
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise write_error(path, len(data), error) from error
    except BaseException:  # Ctrl-C in the middle of a save
        _remove(temporary)
        raise


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte: the system call may take only a part, for example just before the disk is
    full. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_error(path: Path, needed: int, error: OSError) -> UserError:
    """The sentence for `needed` bytes that could not be written to `path`."""
    if error.errno not in _DISK_IS_FULL:
        reason = error.strerror or str(error)
        return UserError(
            f"{path} could not be written ({reason}): make the folder writable or give another one"
        )
    free = shutil.disk_usage(path.parent).free
    return UserError(
        f"the disk is full: {path} needs {size(needed)} and {size(free)} are free; make room and "
        "run the same command again (what was saved before is untouched)"
    )


def remove_leftovers(folder: Path) -> None:
    """Delete the unfinished files of a process that was killed. Only for who holds the folder."""
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def size(count: float) -> str:
    """A number of bytes for people: size(45_100_000) = "45.1 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable (Windows offers no such call)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        pass  # the folder is gone or read-only: the first error is the one to tell
