"""Files by their path or by a URL that fsspec reads: s3://, gs://, hf://, https://, memory://.

Only names are kept and pickled: fsspec opens each file system anew in each process.
"""

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from byol.errors import UserError

T = TypeVar("T")
_AT_ONCE = 16  # shards of a remote set that are opened at the same time


def is_url(path: Any) -> bool:
    """Whether `path` is a string like s3://bucket/folder."""
    return isinstance(path, str) and "://" in path


def beside(path: str, name: str) -> str:
    """The file `name`, relative to the folder of the file `path` (or absolute, or a URL)."""
    if is_url(name):
        return name
    if not is_url(path):
        return str(Path(path).parent / os.path.expanduser(name))
    scheme, _, place = path.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(posixpath.dirname(place), name))}"


def read(path: str, start: int = 0, size: int | None = None) -> bytes:
    """`size` bytes of a file from `start` on (all by default), as one request where it is remote.

    Raises OSError.
    """
    if is_url(path):
        with _as_os_error():
            files, place = _reach(path)
            end = None if size is None else start + size
            content: bytes = files.cat_file(place, start=start, end=end)
            return content
    with open(path, "rb") as file:
        file.seek(start)
        return file.read() if size is None else file.read(size)


def open_file(path: str) -> IO[bytes]:
    """The file, for reading here and there; read through large blocks where it is remote."""
    if not is_url(path):
        return open(path, "rb")
    with _as_os_error():
        files, place = _reach(path)
        opened: IO[bytes] = files.open(place, "rb")
        return opened


def write(path: str, content: bytes) -> None:
    """A whole file or none. Raises OSError."""
    if is_url(path):
        with _as_os_error():
            files, place = _reach(path)
            return files.pipe_file(place, content)
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def is_file(path: str) -> bool:
    """Whether there is such a file."""
    if not is_url(path):
        return os.path.isfile(path)
    with _as_os_error():
        files, place = _reach(path)
        return bool(files.isfile(place))


def is_folder(path: str) -> bool:
    """Whether there is such a folder. Raises OSError where that cannot be known."""
    if not is_url(path):
        return Path(path).is_dir()
    with _as_os_error():
        files, place = _reach(path)
        return bool(files.isdir(place))


def stamp(path: str) -> list[int]:
    """Numbers that change when the file does; the first is its size where that is known."""
    if not is_url(path):
        stat = os.stat(path)
        return [stat.st_size, stat.st_mtime_ns]
    with _as_os_error():
        files, place = _reach(path)
        return [files.size(place) or 0, files.checksum(place)]


def listing(url: str) -> list[str]:
    """All files below a remote folder by their path relative to it, in one sweep; OSError."""
    with _as_os_error():
        files, place = _reach(url)
        place = place.rstrip("/")
        return [found[len(place) :].lstrip("/") for found in files.find(place)]


def each(work: Callable[[str], T], paths: Sequence[str]) -> list[T]:
    """work(path) for every path, several at once where they are remote."""
    if not (paths and is_url(paths[0])):
        return [work(path) for path in paths]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(work, paths))


def _reach(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it; UserError where no package reads such."""
    scheme = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url)  # type: ignore[no-any-return]
    except ImportError as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"{scheme}:// needs a package that is not installed ({reason}): pip install "
            "'byol[remote]' and the one for this storage, such as s3fs, gcsfs or huggingface_hub"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{url} cannot be read ({str(error).splitlines()[0]}); s3://, gs://, hf://, https:// "
            "and whatever else fsspec knows can"
        ) from error


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Every storage has exceptions of its own (no credentials, no bucket, no answer)."""
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise OSError(f"{type(error).__name__}: {reason}") from error
