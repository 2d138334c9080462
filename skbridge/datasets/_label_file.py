"""Labels of the images of a folder, from a table beside them."""

import csv
import json
import os
from pathlib import PurePosixPath

from skbridge._messages import brief, shown

LABEL_FILES = ("labels.csv", "metadata.csv", "labels.jsonl", "metadata.jsonl")
_PATHS = ("file_name", "filename", "file", "path", "image")
_LABELS = ("label", "class", "category", "target", "y")


def find_label_file(folder):
    """Name of the table of labels in a folder, or None.

    Raises
    ------
    ValueError
        If there are several.
    """
    found = [name for name in LABEL_FILES if (folder / name).is_file()]
    if len(found) > 1:
        raise ValueError(
            f"{brief(str(folder))} has several files of labels: {', '.join(found)}. "
            "Leave one there."
        )
    return found[0] if found else None


def read_labels(file):
    """Read a table with one row per image.

    Parameters
    ----------
    file : Path
        CSV with a header (commas, semicolons or tabs), or one JSON object per line.

    Returns
    -------
    dict of str to label
        By path below the folder of the table, with forward slashes. An empty or null
        label is None.

    Raises
    ------
    ValueError
        If it is not such a table, or gives one image two labels.
    """
    try:
        rows = _read_json(file) if file.suffix == ".jsonl" else _read_csv(file)
        labels = {}
        for number, path, label in rows:
            path = _normal(path)
            if labels.setdefault(path, label) != label:
                raise ValueError(
                    f"row {number} gives {brief(path)} the label {brief(label)}, an "
                    f"earlier row gives it {brief(labels[path])}; leave one of them"
                )
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"Cannot read {brief(str(file))}: {error}.") from error
    kinds = {isinstance(label, str) for label in labels.values() if label is not None}
    if len(kinds) > 1:
        raise ValueError(
            f"{brief(str(file))} has labels of mixed kinds, strings and numbers. "
            "Write all as strings."
        )
    return labels


def _read_csv(file):
    text = file.read_text(encoding="utf-8-sig")
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    table = csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True)
    path, label = _columns(table.fieldnames or [])
    for row in table:
        if row[path] is None or row[label] is None or None in row:
            raise ValueError(
                f"line {table.line_num} does not have the {len(table.fieldnames)} "
                "fields of the header"
            )
        yield table.line_num, row[path], row[label].strip() or None


def _read_json(file):
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not a JSON object")
        path, label = _columns(row)
        if not isinstance(row[path], str):
            raise ValueError(f"line {number}: {path!r} is not a string")
        if not isinstance(row[label], str | int | None):
            raise ValueError(
                f"line {number}: {label!r} must be a string, an integer or null, got "
                f"{brief(row[label])}"
            )
        yield number, row[path], row[label]


def _columns(names):
    """Find the columns of paths and labels, whatever their case."""
    known = {str(name).strip().lower(): name for name in names}
    found = [
        next((known[name] for name in wanted if name in known), None)
        for wanted in (_PATHS, _LABELS)
    ]
    if None in found:
        raise ValueError(
            f"it needs a column 'file_name' (or {', '.join(_PATHS[1:])}) and a column "
            f"'label' (or {', '.join(_LABELS[1:])}), got "
            f"{shown(list(names))}; or rename the file, and the labels are the names "
            "of the folders"
        )
    return found


def _normal(path):
    """Path in one spelling; it may not leave the folder."""
    path = path.strip().replace("\\", "/")
    normal = os.path.normpath(path).replace(os.sep, "/")
    is_outside = PurePosixPath(normal).is_absolute() or normal.split("/")[0] == ".."
    if is_outside or not path:
        raise ValueError(
            f"{brief(path)} is not a path below the folder of the table; write it "
            "relative to that folder"
        )
    return normal
