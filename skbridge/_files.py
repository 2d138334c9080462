"""Detection of changed files, and atomic writes."""

import os
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

# Nanoseconds in which a file may be written twice and show one time; FAT's are 2 s.
_COARSEST_CLOCK = 2 * 10**9


class FileStamp(NamedTuple):
    """Metadata of a regular file.

    Attributes
    ----------
    device, inode : int
        Identify the file independently of its path.
    size : int
        In bytes.
    modified, changed : int
        Modification and change time, in nanoseconds.
    """

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    def is_settled(self, now):
        """Whether a change of the file after `now` would show in the stamp.

        The clocks of file systems are coarse: a file that is written twice within one
        of their steps may have the same times after both.

        Parameters
        ----------
        now : int
            When the file was looked at, in nanoseconds since the epoch.

        Returns
        -------
        bool
        """
        return max(self.modified, self.changed) < now - _COARSEST_CLOCK


def file_stamp(file):
    """Take the stamp of a file.

    Parameters
    ----------
    file : str, bytes, path-like or int
        Path, or descriptor of an open file.

    Returns
    -------
    FileStamp or None
        None where there is no regular file. Reading a pipe or a device may never end.
    """
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return FileStamp(
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def file_stamps(sources):
    """Take the stamps of files, and of the files in folders.

    Parameters
    ----------
    sources : sequence of str
        Files, or folders, which stand for the files in them.

    Returns
    -------
    list of list
        Path, then the fields of the `FileStamp`, of each file there is. It compares
        equal to what becomes of it in JSON.
    """
    files = []
    for source in map(Path, sources):
        files += sorted(source.iterdir()) if source.is_dir() else [source]
    stamps = {str(path): file_stamp(path) for path in files}
    return [[path, *stamp] for path, stamp in stamps.items() if stamp is not None]


def who_else_can_write(path):
    """Say which other users can write to a file or folder.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    str or None
        A reason, with the remedy, not to trust what is in it. None where only the
        user of this process can write, and where permissions are not POSIX's.
    """
    if not hasattr(os, "getuid"):
        return None
    status = os.stat(path)
    if status.st_uid != os.getuid():
        return f"{path} belongs to another user, of id {status.st_uid}; use your own"
    others = [
        name
        for name, bit in (("its group", stat.S_IWGRP), ("everybody", stat.S_IWOTH))
        if status.st_mode & bit
    ]
    if not others:
        return None
    return f"{path} can be written by {others[-1]}; run: chmod go-w {str(path)!r}"


@contextmanager
def written_atomically(path):
    """Open a file for writing that replaces `path` once it is complete.

    The content is written to a temporary file in the same folder, flushed to the disk
    and renamed. At any time, also after a crash, `path` is the old file or the whole
    new one.

    Parameters
    ----------
    path : str or path-like

    Yields
    ------
    file object
        Open for writing and reading bytes.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skbridge._files import written_atomically
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "numbers")
    ...     with written_atomically(path) as stream:
    ...         size = stream.write(bytes(3))
    ...     len(path.read_bytes())
    3
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    # Unlike the private files of tempfile, with the permissions that open() gives.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder):
    """Write the new name to the disk too, where folders can be flushed."""
    if os.name != "posix":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
