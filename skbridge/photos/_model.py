"""PhotoModel: an embedder, a classifier, and the photographs it was fitted on."""

import os
import platform
import warnings
from dataclasses import dataclass, field

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch

from skbridge._classifiers.gda import BridgedGDAClassifier
from skbridge._classifiers.semobridge import SeMoBridgeClassifier
from skbridge._clip.load import library_versions
from skbridge._embedder import CLIPEmbedder, embed_readable, model_facts
from skbridge._held_out.shots import Shots
from skbridge._messages import brief, quiet
from skbridge._version import __version__
from skbridge.photos._file import read_model, write_model
from skbridge.photos._held_out import HeldOut, all_scores, judge

_CLASSIFIERS = {
    kind.__name__: kind for kind in (BridgedGDAClassifier, SeMoBridgeClassifier)
}
# Parameters that determine embeddings; the others depend on the machine.
_EMBEDDER_PARAMETERS = ("model", "pretrained", "precision", "fast_jpeg")
# Shots whose probabilities are stored, to notice a version that computes others.
_PROBED_SHOTS = 64
_PROBABILITY_TOLERANCE = 1e-3
# Share of known photographs that may be called unknown, and the label of these.
_REJECT, _REJECT_LABEL = 0.05, "unknown"


@dataclass(frozen=True, eq=False)
class PhotoModel:
    """A fitted embedder and classifier, with the photographs it was fitted on.

    Made by `fit_photos` or `PhotoModel.load`.

    Attributes
    ----------
    embedder : CLIPEmbedder
    classifier : BridgedGDAClassifier or SeMoBridgeClassifier
        Fitted.
    paths : list of str
        Absolute paths of the photographs of the fit.
    labels : list of (str or None)
        Their labels; None for one without.
    embeddings : ndarray of shape (n_photos, n_features)
    fingerprint : str
        Hash of the weights and the architecture of the CLIP model.
    held_out : HeldOut
        Cross-validated accuracy and calibration.
    unreadable : dict of str to str
        Photographs that could not be read when it was fitted, and why. Not saved.

    See Also
    --------
    make_few_shot_pipeline : The pipeline to fit.
    """

    embedder: CLIPEmbedder
    classifier: BridgedGDAClassifier | SeMoBridgeClassifier
    paths: list
    labels: list
    embeddings: np.ndarray
    fingerprint: str
    held_out: HeldOut
    unreadable: dict = field(default_factory=dict)

    @property
    def pipeline(self) -> Pipeline:
        """The fitted pipeline from images to labels."""
        return Pipeline([("clip", self.embedder), ("clf", self.classifier)])

    @property
    def shots(self) -> np.ndarray:
        """Rows of `paths` that have a label."""
        return np.flatnonzero([label is not None for label in self.labels])

    def predict(self, paths) -> Bunch:
        """Classify photographs.

        Parameters
        ----------
        paths : list of str or path-like
            Image files.

        Returns
        -------
        Bunch
            One entry per image that can be read: ``paths`` (list), ``labels`` (ndarray
            of str), ``probabilities`` (ndarray of float, of these labels), ``unknown``
            (ndarray of bool, see Notes), ``proba`` (ndarray of shape (n_images,
            n_classes)) and ``embeddings``; and ``unreadable``, a dict of the others to
            the reason.

        Raises
        ------
        ValueError
            If no image can be read, or if the CLIP model on this machine is not the
            one that the classifier was fitted with.

        Notes
        -----
        An image is unknown if the classifier rejects it, as `reject` of
        :class:`~skbridge.BridgedGDAClassifier` says; it has a label nevertheless.
        """
        rows, embeddings, unreadable = embed(self.embedder, paths)
        self._check_same_model()
        scores = all_scores(self.classifier, embeddings)
        proba = self.classifier.predict_proba(embeddings)
        best = scores.argmax(axis=1)
        answers = self.classifier.predict(embeddings)
        return Bunch(
            paths=[str(paths[row]) for row in rows],
            labels=self.classifier.classes_[best],
            probabilities=proba[np.arange(len(best)), best],
            unknown=~np.isin(answers, self.classifier.classes_),
            proba=proba,
            embeddings=embeddings,
            unreadable=unreadable,
        )

    def save(self, path) -> int:
        """Write the model to one file, without pickles.

        The file holds the parameters, the class texts, the embeddings, paths and labels
        of the photographs, but neither the photographs nor the weights of CLIP.

        Parameters
        ----------
        path : str or path-like
            A file that is there stays complete until the new one is.

        Returns
        -------
        int
            Size in bytes.
        """
        classifier = self.classifier
        params = classifier.get_params(deep=False)
        params.pop("texts")
        embedder = {name: getattr(self.embedder, name) for name in _EMBEDDER_PARAMETERS}
        manifest = {
            "skbridge": __version__,
            "libraries": [platform.python_version(), *library_versions()],
            "embedder": {
                name: value if isinstance(value, bool | None) else str(value)
                for name, value in embedder.items()
            },
            "fingerprint": self.fingerprint,
            "classifier": type(classifier).__name__,
            "parameters": params,
            "paths": self.paths,
            "labels": self.labels,
            "held_out": self.held_out.as_dict(),
        }
        arrays = {"embeddings": self.embeddings, "probabilities": self._probe()}
        return write_model(path, manifest, arrays, classifier.text_head_)

    @classmethod
    def load(cls, path, *, device="auto", cache_dir=None, verbose=0) -> "PhotoModel":
        """Read a model that `save` wrote. No code of the file is run.

        The classifier is fitted again, to the embeddings in the file; CLIP is loaded
        when the first image is embedded.

        Parameters
        ----------
        path : str or path-like
        device, cache_dir, verbose
            Parameters of the :class:`CLIPEmbedder`, which belong to a machine.

        Returns
        -------
        PhotoModel

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, was not written by `save`, or was written by a newer
            version of the library.

        Warns
        -----
        UserWarning
            If this version of the library computes other probabilities than the one
            that wrote the file.
        """
        manifest, arrays, head = read_model(path)
        try:
            model = cls._from_file(manifest, arrays["embeddings"], head)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{brief(str(path))} does not suit this version of skbridge, "
                f"{__version__}; {brief(manifest.get('skbridge'))} wrote it "
                f"({type(error).__name__}: {str(error)[:200]}). Run skbridge fit again."
            ) from error
        model.embedder.set_params(device=device, cache_dir=cache_dir, verbose=verbose)
        probe, written = model._probe(), arrays["probabilities"]
        gap = np.abs(probe - written).max() if probe.shape == written.shape else 1.0
        if not gap <= _PROBABILITY_TOLERANCE:
            warnings.warn(
                f"{brief(str(path))} was written by skbridge "
                f"{brief(manifest['skbridge'])}, whose probabilities differ from those "
                f"of this version by up to {gap:.2g}. Run skbridge fit again.",
                UserWarning,
                stacklevel=2,
            )
        return model

    @classmethod
    def _from_file(cls, manifest, embeddings, head):
        classifier = _CLASSIFIERS[manifest["classifier"]](
            head, **manifest["parameters"]
        )
        labels = manifest["labels"]
        if len(labels) != len(embeddings) or len(manifest["paths"]) != len(labels):
            raise ValueError("its paths, labels and embeddings differ in number")
        with quiet():  # They were shown when it was fitted.
            classifier.fit(embeddings, _targets(labels))
        return cls(
            embedder=CLIPEmbedder(**manifest["embedder"], on_error="nan"),
            classifier=classifier,
            paths=manifest["paths"],
            labels=labels,
            embeddings=embeddings,
            fingerprint=manifest["fingerprint"],
            held_out=HeldOut(**manifest["held_out"]),
        )

    def _probe(self):
        shots = self.shots
        step = -(-len(shots) // _PROBED_SHOTS)
        return self.classifier.predict_proba(self.embeddings[shots[::step]])

    def _check_same_model(self):
        """Refuse a CLIP model with other weights than those of the fit."""
        found = model_facts(self.embedder).fingerprint
        if found != self.fingerprint:
            raise ValueError(
                f"The CLIP model {self.embedder.model!r} on this machine has other "
                f"weights than the one that the classifier was fitted with: its "
                f"fingerprint is {found[:12]}, expected {self.fingerprint[:12]}. Use "
                "the same weights, or run skbridge fit again."
            )


def fit_photos(pipeline, paths, labels) -> PhotoModel:
    """Fit a pipeline to photographs, and measure it on shots that are left out.

    Parameters
    ----------
    pipeline : Pipeline
        As `make_few_shot_pipeline` returns it; it is cloned. Its classifier is fitted
        in closed form. A `BridgedGDAClassifier` with ``reject=None`` gets
        ``reject=0.05``, unless no class has two different photographs, so that images
        of no known class are marked as unknown.
    paths : list of str or path-like
        Photographs; those that cannot be read are left out and listed in `unreadable`.
    labels : list of (str or None)
        None marks a photograph without a label.

    Returns
    -------
    PhotoModel

    Raises
    ------
    ValueError
        If no photograph can be read, or fewer than two classes have one.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skbridge import make_few_shot_pipeline
    >>> from skbridge.datasets import load_emoji
    >>> from skbridge.photos import fit_photos
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = load_emoji(styles=["noto", "twemoji"], folder=folder).filenames
    ...     labels = [Path(path).stem for path in paths]
    ...     pipeline = make_few_shot_pipeline("skbridge-tiny")
    ...     model = fit_photos(pipeline, paths, labels)
    ...     predicted = model.predict(paths[:3])
    >>> [str(label) for label in predicted.labels]
    ['airplane', 'ambulance', 'anchor']
    """
    embedder, classifier = (clone(step) for _, step in pipeline.steps)
    if not (type(classifier).__name__ in _CLASSIFIERS and _in_closed_form(classifier)):
        raise ValueError(
            "fit_photos needs a pipeline of a CLIPEmbedder and a "
            f"{' or '.join(_CLASSIFIERS)} in closed form; got {brief(classifier)}."
        )
    embedder.set_params(on_error="nan")
    rows, embeddings, unreadable = embed(embedder, paths)
    labels = [labels[row] for row in rows]
    n_classes = len(set(labels) - {None})
    if n_classes < 2:
        raise ValueError(
            f"Expected photographs of at least two classes, got {n_classes} "
            f"({brief(sorted(set(labels) - {None}))}). Put those of each class in a "
            "folder of its own."
        )
    y = _targets(labels)
    shots = np.flatnonzero([label is not None for label in labels])
    classes, codes = np.unique(y[shots].astype(str), return_inverse=True)
    if _can_reject(classifier, embeddings[shots], codes):
        taken = _REJECT_LABEL in classes
        label = f"no known class ({_REJECT_LABEL})" if taken else _REJECT_LABEL
        classifier.set_params(reject=_REJECT, reject_label=label)
    classifier.fit(embeddings, y)
    return PhotoModel(
        embedder=embedder,
        classifier=classifier,
        # Absolute, so that a report finds them from any folder.
        paths=[os.path.abspath(paths[row]) for row in rows],
        labels=labels,
        embeddings=embeddings,
        fingerprint=model_facts(embedder).fingerprint,
        held_out=judge(classifier, embeddings[shots], codes),
        unreadable=unreadable,
    )


def embed(embedder, paths):
    """Embed the photographs that can be read.

    Parameters
    ----------
    embedder : CLIPEmbedder
    paths : list of str or path-like

    Returns
    -------
    rows : ndarray of shape (n_read,)
        Positions of those that can be read.
    embeddings : ndarray of shape (n_read, n_features)
    unreadable : dict of str to str
        The others, and why.

    Raises
    ------
    ValueError
        If none can be read.
    """
    embeddings, unreadable = embed_readable(embedder, paths)
    rows = np.setdiff1d(np.arange(len(paths)), list(unreadable))
    unreadable = {str(paths[row]): why for row, why in unreadable.items()}
    if not len(rows):
        path, why = next(iter(unreadable.items()))
        raise ValueError(
            f"None of {len(paths)} photographs can be read. The first is "
            f"{brief(path)}: {why}."
        )
    return rows, embeddings[rows], unreadable


def _targets(labels):
    """Labels for `fit`: missing ones need an array of objects."""
    return np.array(labels, dtype=object if None in labels else str)


def _can_reject(classifier, X, codes):
    """Whether `reject` is free to set, and some class has two different shots."""
    if getattr(classifier, "reject", 0.0) is not None:
        return False
    shots = Shots(X, codes, np.ones(len(codes))).distinct()
    return bool((np.bincount(shots.codes) > 1).any())


def _in_closed_form(classifier):
    return hasattr(classifier, "leave_out")
