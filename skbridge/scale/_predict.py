"""`predict_dataset`: the embeddings of a run to labels."""

import os
from functools import partial
from numbers import Integral

import joblib
import numpy as np
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.validation import check_is_fitted

from skbridge._embedder import CLIPEmbedder, model_facts
from skbridge._messages import brief
from skbridge._version import __version__
from skbridge.photos import PhotoModel
from skbridge.scale._folder import RunFolder
from skbridge.scale._load import embeddings_of
from skbridge.scale._packages import import_arrow
from skbridge.scale._workers import run_shards


@validate_params(
    {
        "model": "no_validation",
        "embeddings": [str, os.PathLike],
        "output": [str, os.PathLike],
        "n_actors": [Interval(Integral, 0, None, closed="left"), None],
        "resume": ["boolean"],
        "verbose": ["verbose"],
    },
    prefer_skip_nested_validation=True,
)
def predict_dataset(
    model, embeddings, output, *, n_actors=None, resume=True, verbose=0
):
    """Classify the embeddings of a run with many processes.

    Parameters
    ----------
    model : classifier, Pipeline, PhotoModel, str or path-like
        Fitted, with `predict_proba`: a classifier of embeddings, a pipeline of a
        :class:`~skbridge.CLIPEmbedder` and one, or what ``skbridge fit`` wrote, or its
        path.
    embeddings : str or path-like
        Folder that :func:`embed_dataset` wrote.
    output : str or path-like
        Folder to write to, which all machines of the cluster see.
    n_actors, resume, verbose
        As for :func:`embed_dataset`.

    Returns
    -------
    pathlib.Path
        The folder. Its files ``shard-*.parquet`` have the rows of those of
        `embeddings`, and the columns ``path`` (string), ``label`` (of the type of the
        labels), ``probability`` (float32), ``unknown`` (bool; whether the classifier
        rejects the image, which has the best label nevertheless) and ``error``
        (string). Where there is an error, the others but ``path`` are null.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or file.
    ValueError
        If the embeddings are of another CLIP model than that of `model`, or of another
        width, if the run is not finished, or if `output` holds another run.
    TypeError
        If `model` is not a classifier with `predict_proba`.
    ImportError
        If Ray or pyarrow is not installed.
    """
    import_arrow()
    source = RunFolder.open(embeddings, "embeddings")
    classifier, facts = _classifier_of(model)
    _check_same_model(source, classifier, facts)
    if source.missing():
        next(source.tables())  # Raises: the run is not finished.
    folder = RunFolder.create(
        output,
        {
            "skbridge": __version__,
            "kind": "predictions",
            "source": str(source.path),
            "images": source.facts["images"],
            "n_shards": source.facts["n_shards"],
            "fingerprint": source.facts["fingerprint"],
            "classifier": joblib.hash(classifier),
        },
        resume,
    )
    run_shards(
        partial(_predict_shard, classifier, source, folder),
        folder.missing(),
        n_actors=n_actors,
        on_gpu=False,
        verbose=verbose,
    )
    folder.finish()
    return folder.path


def _classifier_of(model):
    """Classifier of a model, and what it knows of its CLIP model, by name."""
    if isinstance(model, str | os.PathLike):
        model = PhotoModel.load(model)
    if isinstance(model, PhotoModel):
        embedder = model.embedder
        facts = {"fingerprint": model.fingerprint}
        model = model.classifier
    elif isinstance(model, Pipeline) and isinstance(model[0], CLIPEmbedder):
        embedder = model[0]
        facts = {"fingerprint": model_facts(embedder).fingerprint}
        model = model[1] if len(model) == 2 else model[1:]
    else:
        embedder, facts = None, {}
    if not (is_classifier(model) and hasattr(model, "predict_proba")):
        raise TypeError(
            "model must be a classifier with predict_proba, a pipeline that ends in "
            f"one, a PhotoModel or its file, got {brief(model)}."
        )
    check_is_fitted(model)
    if embedder is not None:
        facts |= {name: getattr(embedder, name) for name in ("precision", "fast_jpeg")}
    return model, facts


def _check_same_model(source, classifier, facts):
    """Refuse embeddings of another model, or made in another way."""
    facts = {**facts, "width": getattr(classifier, "n_features_in_", None)}
    for name, wanted in facts.items():
        found = source.facts[name]
        if wanted is not None and found != wanted:
            raise ValueError(
                f"The embeddings in {brief(str(source.path))} do not suit the model: "
                f"their {name} is {brief(found)}, and that of the model is "
                f"{brief(wanted)}. Embed the images with the CLIPEmbedder of the model."
            )


def _predict_shard(classifier, source, folder, number, n_threads):
    """Classify the images of a shard, and write its file."""
    arrow = import_arrow()
    table = source.table(number)
    is_read = table["error"].is_null()
    rows = np.flatnonzero(is_read.to_numpy(zero_copy_only=False))
    classes = classifier.classes_
    best = np.zeros(len(table), int)
    probability = np.zeros(len(table), np.float32)
    unknown = np.zeros(len(table), bool)
    if len(rows):
        X = embeddings_of(table.filter(is_read))
        proba = classifier.predict_proba(X)
        best[rows] = proba.argmax(axis=1)
        probability[rows] = proba.max(axis=1)
        unknown[rows] = ~np.isin(classifier.predict(X), classes)
    mask = np.ones(len(table), bool)
    mask[rows] = False
    folder.write(
        number,
        {
            "path": table["path"],
            "label": arrow.array(classes[best].tolist(), mask=mask),
            "probability": arrow.array(probability, mask=mask),
            "unknown": arrow.array(unknown, mask=mask),
            "error": table["error"],
        },
    )
