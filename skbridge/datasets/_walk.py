"""Image files of a folder, and a reason for every file that is left out."""

import os
import warnings
from pathlib import Path
from typing import NamedTuple

from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from skbridge._images.batches import Unreadable, read_in_batches
from skbridge._images.formats import image_suffixes, open_image
from skbridge._messages import brief

_BY_SYSTEMS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"}
_CHECKED_AT_ONCE = 64


class LeftOut(NamedTuple):
    """A file or folder that was left out.

    Attributes
    ----------
    path : str
    reason : str
        In one sentence without a full stop.
    is_image : bool
        Whether its suffix is that of an image, so that a picture may be lost.
    is_unlisted : bool
        Whether it is a folder that cannot be listed, so that pictures may be lost.
    """

    path: str
    reason: str
    is_image: bool = False
    is_unlisted: bool = False


@validate_params(
    {"path": [str, os.PathLike], "check": [StrOptions({"header", "pixels"})]},
    prefer_skip_nested_validation=True,
)
def list_images(path, *, check="header"):
    """List the image files of a folder and the folders in it, without labels.

    Use it for new photographs, whose classes are to be predicted.

    Parameters
    ----------
    path : str or path-like
        A folder, or one image file. ``~`` is the home folder.
    check : {"header", "pixels"}, default="header"
        Part of each file that is read. "header" finds files that are not images, and is
        quick; "pixels" decodes each image, and finds those that are cut off too.

    Returns
    -------
    images : :class:`~sklearn.utils.Bunch`
        With these attributes:

        paths : list of str
            Each begins with `path`. They are sorted by folder, then by name.
        left_out : list of LeftOut
            `path`, `reason`, `is_image` and `is_unlisted` of each file or folder that
            is left out.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or file.
    ValueError
        If there is no image that can be read.

    Warns
    -----
    UserWarning
        If files with the suffix of an image cannot be read.

    See Also
    --------
    load_image_folder : With labels, from the names of folders or from a table.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skbridge.datasets import list_images
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("b.PNG", "a.jpeg"):
    ...         Image.new("RGB", (8, 8)).save(Path(folder, name))
    ...     size = Path(folder, "notes.txt").write_text("not an image")
    ...     images = list_images(folder)
    >>> [Path(path).name for path in images.paths]
    ['a.jpeg', 'b.PNG']
    >>> images.left_out[0].reason
    "the suffix '.txt' is not that of an image format that is read"
    """
    path = Path(path).expanduser()
    if path.is_dir():
        names, left_out = scan(path, check)
        paths = [str(path / name) for name in names]
    elif path.exists():
        paths, left_out = _readable([str(path)], check)
    else:
        raise FileNotFoundError(f"path does not exist: {brief(str(path))}")
    if not paths:
        raise ValueError(without_images(path, left_out))
    warn_of_lost_images(path, left_out)
    return Bunch(paths=paths, left_out=left_out)


def without_images(folder, left_out):
    """Message for a folder in which no image can be read."""
    return (
        f"There is no image that can be read in {brief(str(folder))}. "
        + (f"Left out: {_listed(left_out)}. " if left_out else "The folder is empty. ")
        + f"Suffixes of images: {', '.join(sorted(image_suffixes()))}, in any case."
    )


def warn_of_lost_images(folder, left_out):
    """Warn of files that look like images and are left out."""
    lost = [one for one in left_out if one.is_image or one.is_unlisted]
    if lost:
        what = (
            "image files" if all(one.is_image for one in lost) else "files or folders"
        )
        warnings.warn(
            f"{len(lost)} {what} in {brief(str(folder))} are left out: "
            f"{_listed(lost)}. All are in `left_out`.",
            UserWarning,
            stacklevel=4,  # The caller of the loader, which validate_params wraps.
        )


def _listed(left_out):
    """Name the first few that are left out, with their reasons."""
    first = [f"{Path(one.path).name}: {one.reason[:200]}" for one in left_out[:3]]
    more = len(left_out) - len(first)
    return "; ".join(first) + (f"; and {more} more" if more else "")


def scan(root, check, besides=()):
    """Find the images of a folder, at any depth.

    Parameters
    ----------
    root : Path
    check : {"header", "pixels"}
    besides : collection of str
        Names of files directly in `root` that are neither images nor left out.

    Returns
    -------
    names : list of str
        Paths below `root`, with forward slashes, sorted by folder, then by name.
    left_out : list of LeftOut
        Sorted by path.
    """
    files, folders, left_out = walk(root)
    suffixes = image_suffixes()
    candidates = []
    for file in files:
        suffix = os.path.splitext(file)[1].lower()
        if file in besides:
            continue
        if suffix in suffixes:
            candidates.append(file)
        else:
            has = f"the suffix {suffix!r} is not that" if suffix else "no suffix"
            reason = f"{has} of an image format that is read"
            left_out.append(LeftOut(str(root / file), reason))
    paths, unreadable = _readable([str(root / file) for file in candidates], check)
    kept = set(paths)
    names = [file for file in candidates if str(root / file) in kept]
    left_out += unreadable
    left_out += _empty_folders(root, folders, names)
    return sorted(names, key=_by_folder), sorted(left_out)


def _by_folder(name):
    folder, _, file = name.rpartition("/")
    return folder.split("/"), file


def walk(root):
    """List files and folders below a folder, each folder once, links followed.

    Parameters
    ----------
    root : Path

    Returns
    -------
    files, folders : list of str
        Paths below `root`, with forward slashes.
    left_out : list of LeftOut
        Hidden files, and folders that cannot be listed.
    """
    files, folders, left_out = [], [], []
    seen = {_identity(root)}
    pending = [""]
    while pending:
        parent = pending.pop()
        try:
            entries = sorted(os.scandir(root / parent), key=lambda entry: entry.name)
        except OSError as error:
            folder = str(root / parent)
            left_out.append(LeftOut(folder, error.strerror, is_unlisted=True))
            continue
        for entry in entries:
            name = f"{parent}/{entry.name}" if parent else entry.name
            reason = _why_hidden(entry.name)
            if reason is None and entry.is_dir():
                folder = _identity(entry.path)
                if folder in seen:
                    reason = "a link to a folder that is listed already"
                else:
                    seen.add(folder)
                    folders.append(name)
                    pending.append(name)
            elif reason is None:
                files.append(name)
            if reason is not None:
                left_out.append(LeftOut(str(root / name), reason))
    return files, folders, left_out


def _identity(folder):
    status = os.stat(folder)
    # Some file systems number no files.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)


def _why_hidden(name):
    if name.startswith("."):
        return "hidden"
    if name.lower() in _BY_SYSTEMS:
        return "written by the operating system"
    return None


def _empty_folders(root, folders, names):
    """List the topmost folders that have no image in them or below."""
    full = set()
    for name in names:
        while "/" in name:
            name = name.rpartition("/")[0]
            full.add(name)
    return [
        LeftOut(str(root / folder), "no image in this folder")
        for folder in folders
        if folder not in full
        and ("/" not in folder or folder.rpartition("/")[0] in full)
    ]


def _readable(paths, check):
    """Separate the paths of images that can be read from the others."""
    readable, left_out = [], []
    batches = (
        read_in_batches(paths, lambda image: None, batch_size=_CHECKED_AT_ONCE)
        if check == "pixels"
        else [(0, [_read_header(path) for path in paths])]
    )
    for start, results in batches:
        for path, result in zip(paths[start:], results, strict=False):
            if isinstance(result, Unreadable):
                left_out.append(LeftOut(path, result.reason, True))
            else:
                readable.append(path)
    return readable, left_out


def _read_header(path):
    try:
        open_image(path).close()
    except Exception as error:  # Damaged files raise almost anything.
        return Unreadable(path, error)
    return None
