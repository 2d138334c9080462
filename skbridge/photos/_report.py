"""A page on which a person looks at predictions and corrects labels.

One HTML file with its style, script, numbers and thumbnails, which loads nothing. All
text of files and labels is in one block of JSON, from which the script makes text
nodes; a content security policy allows no other script than the page's own.
"""

import base64
import hashlib
import io
import json
import os
from importlib import resources

import numpy as np
from PIL import Image
from sklearn.utils import Bunch

from skbridge._files import written_atomically
from skbridge._images.batches import Unreadable, read_in_batches
from skbridge._messages import shown
from skbridge._rows import unit
from skbridge._version import __version__
from skbridge.photos._held_out import held_out_scores, measures
from skbridge.review import label_next, near_duplicates, suspicious_labels

# Predicted classes that are stored of each photograph.
_TOP = 3
# Photographs on one page, the most uncertain ones where there are more.
_MOST_PHOTOS = 10_000
_MOST_SUSPICIOUS = 60
_MOST_CONFUSIONS = 40
_MOST_ITEMS_OF_CONFUSION = 12
_MOST_DUPLICATES = 200
_MOST_CLASSES_OF_MATRIX = 24
_NEAREST_SHOTS = 5
# Side of thumbnails in pixels by the number of photographs, for a page below 30 MB.
_SIDES = ((1_500, 192), (6_000, 128), (_MOST_PHOTOS, 96))
_WEBP_QUALITY = 70
_READ_AT_ONCE = 64


def write_report(model, paths, output, *, labels=None, n_next=20):
    """Write a page that shows photographs with their labels, and what is doubtful.

    The page is one HTML file of less than 30 MB, to be opened from disk. It shows the
    new photographs, uncertain ones first, those that are unknown, those to label next,
    near-duplicates of training photographs, training photographs whose label the
    others contradict, and which classes are confused. Labels that are corrected on the
    page are exported as CSV, for `read_corrections`.

    Parameters
    ----------
    model : PhotoModel
    paths : list of str or path-like
        New photographs. Of more than 10,000 the most uncertain are shown.
    output : str or path-like
        The HTML file to write.
    labels : list of (str or None), default=None
        True labels of the new photographs, None for one whose label is not known. With
        them the page shows the accuracy on these, and their confusions in place of
        those of training photographs.
    n_next : int, default=20
        Number of photographs that are marked to be labelled next.

    Returns
    -------
    Bunch
        The predictions, as :meth:`PhotoModel.predict` returns them, and ``measured``:
        for photographs with a label a Bunch of their number ``n``, ``accuracy``, its
        95 % ``interval``, ``confidence`` (mean probability) and ``calibration_error``;
        None if there are none.

    Raises
    ------
    ValueError
        If no photograph can be read, or a label is not one of the model's classes.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skbridge import make_few_shot_pipeline
    >>> from skbridge.datasets import load_emoji
    >>> from skbridge.photos import fit_photos, write_report
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = load_emoji(styles=["noto", "twemoji"], folder=folder).filenames
    ...     labels = [Path(path).stem for path in paths]
    ...     pipeline = make_few_shot_pipeline("skbridge-tiny")
    ...     model = fit_photos(pipeline, paths[:10], labels[:10])
    ...     predicted = write_report(model, paths[140:150], f"{folder}/page.html")
    ...     Path(folder, "page.html").read_text()[:15]
    '<!DOCTYPE html>'
    """
    # Corrections that are exported from the page are read in any folder.
    paths = [os.path.abspath(path) for path in paths]
    labels = dict(zip(paths, labels or [None] * len(paths), strict=True))
    _check_labels(labels.values(), model.classifier.classes_)
    predicted = model.predict(paths)
    page = _Page(model, predicted, [labels[path] for path in predicted.paths])
    predicted.measured = page.measured
    content = page.content(n_next)
    with written_atomically(output) as stream:
        stream.write(_html(content).encode())
    return predicted


def _check_labels(labels, classes):
    others = set(labels) - {None, *classes}
    if others:
        raise ValueError(
            f"labels has {shown(sorted(others))}, which the model does not know. "
            "Expected None or one of its classes for each photograph."
        )


class _Page:
    """Content of the page, for JSON.

    The new photographs are its first items, followed by the shots that it needs.
    """

    def __init__(self, model, predicted, labels):
        self.model = model
        self.predicted = predicted
        self.classes = [str(label) for label in model.classifier.classes_]
        shots = model.shots
        self.shot_paths = [model.paths[row] for row in shots]
        self.shot_labels = np.array([str(model.labels[row]) for row in shots])
        self.shot_codes = np.searchsorted(model.classifier.classes_, self.shot_labels)
        self.shot_embeddings = model.embeddings[shots]
        code = {label: k for k, label in enumerate(self.classes)} | {None: -1}
        #: Class of each new photograph, -1 where it is not known.
        self.true = np.array([code[label] for label in labels])
        self.best = np.searchsorted(model.classifier.classes_, predicted.labels)
        self.measured = self._measured()
        self.items = []
        self._item_of_shot = {}

    def _measured(self):
        rows = np.flatnonzero(self.true >= 0)
        if not len(rows):
            return None
        right = self.true[rows] == self.best[rows]
        return Bunch(n=len(rows), **measures(self.predicted.probabilities[rows], right))

    def content(self, n_next):
        """All of the page's content."""
        predicted = self.predicted
        rows = self._shown_rows()
        next_rows = label_next(
            self.model.classifier,
            predicted.embeddings,
            n_next,
            labelled=self.shot_embeddings,
        ).indices
        copies = near_duplicates(predicted.embeddings, self.shot_embeddings)
        self._add_new(rows, next_rows, copies)
        content = {
            "suspicious": self._suspicious(),
            "duplicates": self._duplicates(rows, copies),
            **self._confusions(rows),
        }
        self._add_thumbnails(len(rows))
        return content | {
            "id": hashlib.sha256(
                "\n".join(predicted.paths).encode("utf-8", "surrogatepass")
            ).hexdigest()[:16],
            "title": _title(predicted.paths),
            "subtitle": self._subtitle(len(rows)),
            "numbers": self._numbers(len(copies.indices)),
            "classes": self.classes,
            "items": self.items,
            "unreadable": list(predicted.unreadable.items()),
        }

    def _shown_rows(self):
        proba = self.predicted.proba
        if len(proba) <= _MOST_PHOTOS:
            return np.arange(len(proba))
        two = np.partition(proba, -2, axis=1)[:, -2:]
        order = np.argsort(two[:, 1] - two[:, 0], kind="stable")
        return np.sort(order[:_MOST_PHOTOS])

    def _add_new(self, rows, next_rows, copies):
        predicted = self.predicted
        rank = {row: rank for rank, row in enumerate(next_rows.tolist(), 1)}
        copied = set(copies.indices.tolist())
        common = _common_folder(predicted.paths)
        for row in rows.tolist():
            path = predicted.paths[row]
            item = {
                "path": path,
                "name": os.path.relpath(path, common or os.curdir),
                "top": _top(predicted.proba[row]),
            }
            if self.true[row] >= 0:
                item["true"] = int(self.true[row])
            if predicted.unknown[row]:
                item["unknown"] = True
            if row in rank:
                item["rank"] = rank[row]
            if row in copied:
                item["duplicate"] = True
            self.items.append(item)

    def _shot(self, row, suggested=None):
        """Position of the item of a shot, which is added where it is missing.

        `suggested` is the class to offer as its label.
        """
        row = int(row)
        if row not in self._item_of_shot:
            self._item_of_shot[row] = len(self.items)
            self.items.append(
                {
                    "path": self.shot_paths[row],
                    "name": os.path.basename(self.shot_paths[row]),
                    "given": str(self.shot_labels[row]),
                    "top": [],
                }
            )
        position = self._item_of_shot[row]
        if suggested is not None:
            self.items[position]["top"] = [[int(suggested), 0.0]]
        return position

    def _suspicious(self):
        if max(self.model.held_out.shots) < 2:
            return []
        found = suspicious_labels(
            self.model.classifier, self.shot_embeddings, self.shot_labels
        )
        rows = found.indices[:_MOST_SUSPICIOUS]
        x = unit(self.shot_embeddings)
        cosines = x[rows] @ x.T
        cosines[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :_NEAREST_SHOTS]
        codes = np.searchsorted(self.classes, found.suggested[rows].astype(str))
        return [
            {
                "item": self._shot(row, code),
                "nearest": [self._shot(other) for other in others],
            }
            for row, code, others in zip(rows, codes, nearest, strict=True)
        ]

    def _duplicates(self, rows, copies):
        position = {int(row): place for place, row in enumerate(rows)}
        order = np.argsort(-copies.similarity, kind="stable")[:_MOST_DUPLICATES]
        return [
            [
                position[int(copies.indices[i])],
                self._shot(copies.nearest[i]),
                round(float(copies.similarity[i]), 4),
            ]
            for i in order
            if int(copies.indices[i]) in position
        ]

    def _predicted_shots(self):
        """Class of each shot by a fit without it, -1 where there is none."""
        scores = held_out_scores(
            self.model.classifier, self.shot_embeddings, self.shot_codes
        )
        is_scored = np.isfinite(scores).all(axis=1)
        return np.where(is_scored, scores.argmax(axis=1), -1)

    def _confusions(self, shown_rows):
        """Confusions of new photographs or, if none has a label, of held-out shots."""
        if self.measured:
            codes, best = self.true, self.best
        else:
            codes, best = self.shot_codes, self._predicted_shots()
        n_classes = len(self.classes)
        scored = np.flatnonzero((codes >= 0) & (best >= 0))
        counts = np.zeros((n_classes, n_classes), dtype=int)
        np.add.at(counts, (codes[scored], best[scored]), 1)
        wrong = counts - np.diag(np.diag(counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
        pairs = [np.unravel_index(i, wrong.shape) for i in order if wrong.flat[i]]
        confusions = [
            {
                "true": int(own),
                "predicted": int(other),
                "count": int(wrong[own, other]),
                "of": int(counts[own].sum()),
                "items": self._confused_items(
                    np.flatnonzero((codes == own) & (best == other)), other, shown_rows
                ),
            }
            for own, other in pairs
        ]
        return {"confusions": confusions, "matrix": self._matrix(counts, pairs)}

    def _confused_items(self, rows, other, shown_rows):
        """Positions of the first items that were taken for the class `other`."""
        if not self.measured:
            rows = rows[:_MOST_ITEMS_OF_CONFUSION]
            return [self._shot(row, other) for row in rows]
        # The new photographs that are shown are the first items, in their order.
        rows = rows[np.isin(rows, shown_rows)][:_MOST_ITEMS_OF_CONFUSION]
        return np.searchsorted(shown_rows, rows).tolist()

    def _matrix(self, counts, pairs):
        """Return counts of all classes or, of many, those of the most confused."""
        shown = list(range(len(counts)))
        if len(counts) > _MOST_CLASSES_OF_MATRIX:
            involved = dict.fromkeys(int(k) for pair in pairs for k in pair)
            shown = sorted(list(involved)[:_MOST_CLASSES_OF_MATRIX])
        return {
            "new": self.measured is not None,
            "shown": shown,
            "counts": counts[np.ix_(shown, shown)].tolist(),
        }

    def _add_thumbnails(self, n_new):
        side = next((side for most, side in _SIDES if n_new <= most), _SIDES[-1][1])
        paths = [item["path"] for item in self.items]
        read = read_in_batches(
            paths,
            lambda image: _thumbnail(image, side),
            batch_size=_READ_AT_ONCE,
            least_side=2 * side,
        )
        for start, thumbnails in read:
            for item, thumbnail in zip(self.items[start:], thumbnails, strict=False):
                # Photographs of the fit may be gone: their frames stay empty.
                if not isinstance(thumbnail, Unreadable):
                    item["thumb"] = thumbnail

    def _subtitle(self, n_shown):
        n = len(self.predicted.paths)
        part = "" if n_shown == n else f" · the {n_shown:,} most uncertain are shown"
        return f"{self.model.embedder.model} · skbridge {__version__}{part}"

    def _numbers(self, n_copies):
        predicted, n_shots = self.predicted, len(self.shot_paths)
        reject = getattr(self.model.classifier, "reject", None)
        numbers = [
            (
                "New photographs",
                f"{len(predicted.paths):,}",
                f"{len(self.classes):,} classes, {n_shots:,} shots",
            ),
            (
                "Unknown",
                f"{int(predicted.unknown.sum()):,}",
                "not estimated"
                if reject is None
                else f"like no class; {reject:.0%} of known ones too",
            ),
            ("Near-duplicates", f"{n_copies:,}", "of training photographs"),
        ]
        held_out = self.model.held_out if self.model.held_out.interval else None
        if self.measured:
            of = f"of {self.measured.n:,} with a label · "
            numbers.append(_accuracy("Accuracy", self.measured, of))
        if held_out:
            numbers.append(_accuracy("Held-out accuracy", held_out))
        if best_known := self.measured or held_out:
            error = f"{best_known.calibration_error:.1%}"
            note = f"mean probability {best_known.confidence:.0%}"
            numbers.append(("Calibration error", error, note))
        return numbers


def _accuracy(name, measured, of=""):
    low, high = measured.interval
    note = f"{of}95% interval {low:.0%} to {high:.0%}"
    return name, f"{measured.accuracy:.1%}", note


def _common_folder(paths):
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # They lie on different drives.
        return ""


def _title(paths):
    folder = os.path.basename(_common_folder(paths))
    return f"Photographs of {folder}" if folder else "Photographs"


def _top(proba):
    order = np.argsort(-proba, kind="stable")[:_TOP]
    return [[int(k), round(float(proba[k]), 4)] for k in order]


def _thumbnail(image, side):
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=_WEBP_QUALITY, method=2)
    return base64.b64encode(stream.getvalue()).decode()


def _html(content):
    """Fill the page; the content comes last, for it may contain anything."""
    folder = resources.files("skbridge.photos") / "report"
    page, style, script = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "page.js")
    )
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_source(style)}; script-src {_source(script)}"
    )
    # "<" would end the block of JSON, in "</script>".
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    parts = {"policy": policy, "style": style, "script": script, "data": data}
    for name, text in parts.items():
        page = page.replace("{{" + name + "}}", text, 1)
    return page


def _source(code):
    """Name code in a content security policy, by its hash."""
    digest = hashlib.sha256(code.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
