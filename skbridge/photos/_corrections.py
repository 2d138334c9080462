"""Labels that a person corrected."""

import csv
import os
from pathlib import Path

from skbridge._messages import brief, shown


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
        If the file is not such a table.
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


def apply_corrections(paths, labels, corrections):
    """Apply corrections to photographs and their labels.

    Parameters
    ----------
    paths : list of str
        Absolute paths.
    labels : list of (str or None)
    corrections : dict of str to (str or None)
        As `read_corrections` returns them. A photograph that is not listed is added.

    Returns
    -------
    paths : list of str
    labels : list of (str or None)
    gone : list of str
        Paths of corrections whose file is not there, which change nothing.

    Examples
    --------
    >>> from skbridge.photos import apply_corrections
    >>> apply_corrections(["/a.jpg"], ["cat"], {"/no/such/file.jpg": "dog"})
    (['/a.jpg'], ['cat'], ['/no/such/file.jpg'])
    """
    labels = dict(zip(paths, labels, strict=True))
    gone = []
    for path, label in corrections.items():
        if not os.path.isfile(path):
            gone.append(path)
        elif label is None:
            labels.pop(path, None)
        else:
            labels[path] = label
    return list(labels), list(labels.values()), gone
