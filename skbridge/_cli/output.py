"""Output of commands: tables, CSV and JSON."""

import csv
import json
import os
import sys
from io import StringIO

import numpy as np
from sklearn.utils import Bunch

from skbridge._files import written_atomically
from skbridge._messages import shown

# Classes of a fit that are printed; beyond, those of the least accuracy.
_MOST_CLASSES = 40
_FEW_CLASSES = 20


def tell(message):
    """Print a line about the work, apart from its result."""
    print(f"skbridge: {message}", file=sys.stderr)


def count(n, noun):
    """Write a number with its noun, as in "1 file" and "2 classes"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{n} {noun if n == 1 else plural}"


def printable(text):
    """Show what would move the cursor, or end the line, as an escape."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1]
        for character in str(text)
    )


def take(predicted, rows):
    """Select some rows of predictions."""
    names = ("labels", "probabilities", "unknown", "proba", "embeddings")
    return Bunch(
        paths=[predicted.paths[row] for row in rows],
        unreadable=predicted.unreadable,
        **{name: predicted[name][rows] for name in names},
    )


class PredictionTable:
    """Predictions as text, CSV or JSON.

    Parameters
    ----------
    predicted : Bunch
        As :meth:`PhotoModel.predict` returns it.
    classes : ndarray of shape (n_classes,)
    top : int
        Classes to show of each photograph.
    """

    def __init__(self, predicted, classes, top=1):
        self.predicted = predicted
        order = np.argsort(-predicted.proba, axis=1, kind="stable")
        order = order[:, : min(top, len(classes))]
        self.labels = classes[order]
        self.probabilities = np.take_along_axis(predicted.proba, order, axis=1)
        #: New path of each photograph, where they were copied.
        self.moved = None

    def print_text(self):
        """Print one line per photograph, with its path relative to this folder."""
        predicted = self.predicted
        paths = [printable(nearby(path)) for path in predicted.paths]
        width = min(60, max(map(len, paths), default=0))
        for row, path in enumerate(paths):
            pairs = zip(self.labels[row], self.probabilities[row], strict=True)
            answer = ", ".join(f"{printable(label)} {p:.0%}" for label, p in pairs)
            note = "  unknown" if predicted.unknown[row] else ""
            print(f"{path:<{width}}  {answer}{note}")

    def write_csv(self, path):
        """Write one row per photograph, also for those that cannot be read."""
        text = StringIO()
        table = csv.writer(text, lineterminator="\n")
        names = ["path", "label", "probability", "unknown"]
        for rank in range(2, self.labels.shape[1] + 1):
            names += [f"label_{rank}", f"probability_{rank}"]
        table.writerow([*names, *(["new_path"] if self.moved else []), "error"])
        for row, record in enumerate(self._records()):
            line = [record[name] for name in names[:4]]
            for label, p in record["top"][1:]:
                line += [label, p]
            table.writerow([*line, *([self.moved[row]] if self.moved else []), ""])
        width = len(names) - 1 + bool(self.moved)
        for bad, why in self.predicted.unreadable.items():
            table.writerow([bad, *[""] * width, why])
        if path == "-":
            print(text.getvalue(), end="")
            return
        with written_atomically(path) as stream:
            stream.write(text.getvalue().encode("utf-8", "surrogateescape"))

    def print_json(self):
        """Print one object: predictions, and what cannot be read."""
        unreadable = [
            {"path": path, "error": why}
            for path, why in self.predicted.unreadable.items()
        ]
        content = {"predictions": list(self._records()), "unreadable": unreadable}
        print(json.dumps(content, indent=1))

    def _records(self):
        predicted = self.predicted
        for row, path in enumerate(predicted.paths):
            top = [
                [str(label), round(float(p), 6)]
                for label, p in zip(
                    self.labels[row], self.probabilities[row], strict=True
                )
            ]
            record = {
                "path": path,
                "label": top[0][0],
                "probability": top[0][1],
                "unknown": bool(predicted.unknown[row]),
                "top": top,
            }
            if self.moved:
                record["new_path"] = self.moved[row]
            yield record


def print_fit(model, seconds, path, size):
    """Print what was learned: classes, shots, accuracy, calibration, seconds."""
    held_out = model.held_out
    rows = list(
        zip(
            held_out.classes,
            held_out.shots,
            held_out.scored,
            held_out.right,
            strict=True,
        )
    )
    few = [name for name, shots, *_ in rows if shots < 2]
    if few:
        tell(f"warning: one shot only, so no held-out accuracy: {shown(few)}")
    chosen = rows
    if len(rows) > _MOST_CLASSES:
        chosen = sorted(rows, key=lambda row: row[3] / row[2] if row[2] else 2)
        chosen = chosen[:_FEW_CLASSES]
    width = max(10, *(len(printable(row[0])) for row in chosen))
    print(f"{'class':<{width}}  shots  held-out accuracy")
    for name, shots, scored, right in chosen:
        share = f"{right / scored:>5.0%}  ({right} of {scored})" if scored else "    –"
        print(f"{printable(name):<{width}}  {shots:>5}  {share}")
    if len(chosen) < len(rows):
        print(f"... and {len(rows) - len(chosen)} classes of higher accuracy")
    print()
    n_shots = sum(held_out.shots)
    print(f"classes      {len(rows)}")
    print(f"shots        {n_shots}")
    if len(model.labels) > n_shots:
        used = getattr(model.classifier, "uses_unlabelled_", None)
        print(f"unlabelled   {len(model.labels) - n_shots}, {_use(used)}")
    if held_out.accuracy is not None:
        low, high = held_out.interval
        print(
            f"accuracy     {held_out.accuracy:.1%} of {sum(held_out.scored)} held-out "
            f"shots (95% interval {low:.1%} to {high:.1%})"
        )
        print(
            f"calibration  mean probability {held_out.confidence:.1%}, calibration "
            f"error {held_out.calibration_error:.1%}"
        )
    print(f"seconds      {seconds:.1f}")
    print(f"written      {printable(path)} ({size / 1e6:.1f} MB)")


def _use(used):
    return (
        "which helped held-out shots" if used else "not used: no held-out shot gained"
    )


def nearby(path):
    """Make a path relative to this folder, if it is in it."""
    here = os.getcwd() + os.sep
    return path.removeprefix(here)
