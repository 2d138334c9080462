"""Copies of photographs in one folder per label."""

import os
import re
import shutil
from pathlib import Path
from tempfile import NamedTemporaryFile

_UNKNOWN = "unknown"
# Separators of paths, and what file systems refuse.
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f<>:"/\\|?*]')
_LONGEST_NAME = 120


def sort_photos(predictions, folder, *, move=False):
    """Copy photographs to one folder per predicted label; nothing is overwritten.

    Parameters
    ----------
    predictions : Bunch
        As :meth:`PhotoModel.predict` returns them. Those that are unknown go to the
        folder ``unknown``, and those that cannot be read stay where they are.
    folder : str or path-like
        Made where it is missing.
    move : bool, default=False
        Remove each photograph once its copy is complete.

    Returns
    -------
    list of str
        The new path of each photograph, in order. A name that is taken gets a number,
        as in ``cat/photo-2.jpg``.
    """
    return [
        _copy(Path(path), Path(folder) / _folder_name(label, unknown), move)
        for path, label, unknown in zip(
            predictions.paths, predictions.labels, predictions.unknown, strict=True
        )
    ]


def _folder_name(label, unknown):
    """Name of the folder of a label, which is never another folder's path."""
    if unknown:
        return _UNKNOWN
    name = _NOT_IN_NAMES.sub("_", str(label)).strip(" .")
    return name[:_LONGEST_NAME] or "_"


def _copy(path, folder, move):
    folder.mkdir(parents=True, exist_ok=True)
    # Only a complete copy gets the final name, so that a kill leaves no half file.
    with NamedTemporaryFile(dir=folder, prefix=".", delete=False) as copied:
        part = Path(copied.name)
    try:
        shutil.copy2(path, part)
        target = _rename_to_free_name(part, path, folder)
    finally:
        part.unlink(missing_ok=True)
    if move:
        os.unlink(path)
    return str(target)


def _rename_to_free_name(part, path, folder):
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        target = folder / f"{path.stem}{suffix}{path.suffix}"
        try:
            # A link, unlike a rename, never replaces a file.
            os.link(part, target)
            return target
        except FileExistsError:
            number += 1
        except OSError:
            # Some file systems have no links.
            if not target.exists():
                return part.rename(target)
            number += 1
