"""Photographs and labels from folders, and a person's corrections."""

import csv
import os
from pathlib import Path

from sklearn.utils import Bunch

from skbridge._messages import brief, shown

# What the image reader takes, in any case; HEIF needs a plugin of PIL.
_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif"),
    *(".tiff", ".avif", ".heic", ".heif", ".jp2", ".ppm", ".pgm", ".pbm", ".ico"),
    *(".qoi", ".sgi", ".pcx", ".tga", ".mpo"),
)
# Files that programs leave in folders of photographs.
_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "license", "readme", "readme.md"})
_UNLABELLED = "unlabelled"


def list_photos(folder):
    """List the photographs of a folder that has one folder per class.

    Parameters
    ----------
    folder : str or path-like
        Its folders are the classes, and their names the labels; what lies in folders
        of theirs belongs to the same class. Files beside them, and those in a folder
        ``unlabelled``, have no label. Hidden files and folders do not count.

    Returns
    -------
    Bunch
        ``paths`` : list of str
            Absolute paths, sorted by class and name.
        ``labels`` : list of (str or None)
            The label of each; None for a photograph without one.
        ``skipped`` : list of str
            Other files that are there.
        ``empty`` : list of str
            Classes without a photograph.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    NotADirectoryError
        If it is a file.
    ValueError
        If there is no photograph in it.

    Examples
    --------
    >>> import tempfile
    >>> from skbridge.datasets import load_emoji
    >>> from skbridge.photos import list_photos
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     emoji = load_emoji(styles=["noto", "twemoji"], folder=folder)
    ...     found = list_photos(folder)
    >>> len(found.paths), sorted(set(found.labels))
    (280, ['noto', 'twemoji'])
    """
    folder = Path(folder).expanduser()
    if not folder.exists():
        raise FileNotFoundError(f"There is no folder {brief(str(folder))}.")
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{brief(str(folder))} is a file; expected a folder that has one folder "
            "of photographs per class."
        )
    found = Bunch(paths=[], labels=[], skipped=[], empty=[])
    for entry in sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name)):
        if _is_hidden(entry.name):
            continue
        if not entry.is_dir():
            _add(found, entry, None)
            continue
        label = None if entry.name.lower() == _UNLABELLED else entry.name
        before = len(found.paths)
        for path in _files_under(entry):
            _add(found, path, label)
        if label is not None and len(found.paths) == before:
            found.empty.append(label)
    if not found.paths:
        raise ValueError(
            f"There is no photograph in {brief(str(folder))}. Put the photographs of "
            "each class in a folder of its own, such as "
            f"{os.path.join(folder.name, 'cat', '1.jpg')}."
        )
    return found


def files_of(sources):
    """List photographs of files and folders, in the order given.

    Parameters
    ----------
    sources : iterable of str or path-like
        A file counts whatever its suffix; of a folder, those files count that have
        the suffix of an image, at any depth.

    Returns
    -------
    list of str
        Absolute paths, each once.

    Raises
    ------
    FileNotFoundError
        If a source does not exist.
    """
    paths = []
    for source in map(Path, sources):
        source = source.expanduser()
        if source.is_dir():
            paths += [path for path in _files_under(source) if _is_image(path)]
        elif source.exists():
            paths.append(source)
        else:
            raise FileNotFoundError(f"There is no file or folder {brief(str(source))}.")
    return list(dict.fromkeys(os.path.abspath(path) for path in paths))


def read_corrections(path):
    """Read the labels that a person corrected.

    Parameters
    ----------
    path : str or path-like
        A CSV file with the columns ``path`` and ``label``, and any others, as the page
        of ``skbridge report`` exports. A relative path starts at the folder of the
        file. An empty label says that the photograph is not to be used.

    Returns
    -------
    dict of str to (str or None)
        The label of each absolute path, None for an empty one. The last line of a
        path counts.

    Raises
    ------
    ValueError
        If the file is no such table.
    """
    path = Path(path).expanduser()
    corrections = {}
    # Spreadsheets write a byte order mark.
    with path.open(newline="", encoding="utf-8-sig") as stream:
        try:
            table = csv.DictReader(stream, strict=True)
            columns = table.fieldnames or []
            if not {"path", "label"} <= set(columns):
                raise ValueError(
                    "expected the columns path and label, got "
                    f"{shown(columns) or 'an empty file'}"
                )
            for row in table:
                if row["path"] is None or row["label"] is None:
                    raise ValueError(f"line {table.line_num} has too few columns")
                name = os.path.abspath(os.path.join(path.parent, row["path"]))
                corrections[name] = row["label"].strip() or None
        except (ValueError, csv.Error) as error:
            raise ValueError(
                f"Cannot read the corrections {brief(str(path))}: {error}."
            ) from error
    return corrections


def corrected(found, corrections):
    """Apply corrections to listed photographs.

    Parameters
    ----------
    found : Bunch
        As `list_photos` returns it; it stays as it is.
    corrections : dict of str to (str or None)
        As `read_corrections` returns them. A photograph that is not listed is added.

    Returns
    -------
    paths : list of str
    labels : list of (str or None)
    gone : list of str
        Paths of corrections whose file is not there, which change nothing.
    """
    labels = dict(zip(found.paths, found.labels, strict=True))
    gone = []
    for path, label in corrections.items():
        if not os.path.isfile(path):
            gone.append(path)
        elif label is None:
            labels.pop(path, None)
        else:
            labels[path] = label
    return list(labels), list(labels.values()), gone


def _is_hidden(name):
    # Thumbnails and metadata of other systems: .DS_Store, ._photo.jpg, __MACOSX.
    return name.startswith((".", "__MACOSX")) or name.lower() in _CLUTTER


def _is_image(path):
    return path.suffix.lower() in _SUFFIXES


def _files_under(folder):
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        files += [Path(root, name) for name in sorted(names) if not _is_hidden(name)]
    return files


def _add(found, path, label):
    if not _is_image(path):
        found.skipped.append(os.path.abspath(path))
        return
    found.paths.append(os.path.abspath(path))
    found.labels.append(label)
