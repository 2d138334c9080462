"""Random parameters and data: labels, probabilities and copies agree."""

import pickle
import re
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from skbridge import (
    BridgedGDAClassifier,
    FewShotSearchCV,
    SeMoBridgeClassifier,
    TextHead,
)
from skbridge.baselines import (
    APEClassifier,
    GDAClassifier,
    LPPlusPlusClassifier,
    ProKeRClassifier,
    TipAdapterClassifier,
    TransCLIPClassifier,
)


def clip_like(rng):
    """Texts, shots and queries whose cosines are about CLIP's: 0.15 to 0.35."""
    n_classes, width = rng.integers(2, 12), int(rng.choice([16, 64, 128]))
    texts = rng.normal(size=(n_classes, width))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    gap = rng.normal(size=width)
    gap /= np.linalg.norm(gap)
    noise = rng.uniform(0.01, 0.1)

    def images(counts):
        y = np.repeat(np.arange(n_classes), counts)
        X = 0.3 * texts[y] + 0.9 * gap + noise * rng.normal(size=(len(y), width))
        scale = 10 ** rng.uniform(-3, 3)
        return (scale * X).astype(rng.choice([np.float32, np.float64])), y

    counts = rng.integers(1, 5, size=n_classes)
    projection = {}
    if rng.random() < 0.5:
        projection = {"projection": rng.normal(size=(width, width)) / np.sqrt(width)}
        eos = texts @ np.linalg.pinv(projection["projection"])
        head = TextHead.from_arrays(range(n_classes), eos=eos, **projection)
    else:
        bank = rng.normal(size=(100, width)) if rng.random() < 0.5 else None
        head = TextHead.from_features(range(n_classes), texts, text_bank=bank)
    return (None if rng.random() < 0.2 else head), images(counts), images(5)[0]


def some(rng, **choices):
    """Some of the parameters, each with one of its values or a number of its range."""
    chosen = {}
    for name, values in choices.items():
        if rng.random() < 0.5:
            if isinstance(values, tuple):
                chosen[name] = float(rng.uniform(*values))
            else:
                chosen[name] = values[rng.integers(len(values))]
    return chosen


def random_classifier(rng, head):
    """One of the classifiers with random parameters that its docstring allows."""
    bridge = ["auto", "identity"]
    kind = rng.integers(8)
    if kind == 0:
        params = some(
            rng,
            bridge=bridge,
            shrinkage=(1e-3, 10),
            lambda_3=(0, 10),
            temperature=(1e-3, 1e3),
        )
        if head is not None:
            params |= some(rng, lambda_1=(0, 10))
        return BridgedGDAClassifier(head, **params)
    if kind == 1:
        params = some(
            rng,
            bridge=bridge,
            lambda_2=(0, 10),
            lambda_3=(0, 10),
            temperature=(1e-3, 1e3),
        )
        if rng.random() < 0.7:
            params |= {"blending": "exponential"}
            params |= some(rng, beta=(0, 100), gamma=(0, 100))
            if head is not None:
                params |= some(rng, alpha=(0, 100), smoothness=(0, 4))
        return SeMoBridgeClassifier(head, **params)
    rivals = [
        TipAdapterClassifier,
        APEClassifier,
        GDAClassifier,
        ProKeRClassifier,
        LPPlusPlusClassifier,
        TransCLIPClassifier,
    ]
    return rivals[kind - 2](head)


def disagreement(classifier, X, y, queries):
    """Name what is wrong, or None."""
    fitted = classifier.fit(X, y)
    labels = fitted.predict(queries)
    scores = fitted.decision_function(queries)
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1)
    proba = fitted.predict_proba(queries)
    if not np.isfinite(proba).all() or not np.isfinite(scores).all():
        return "not finite"
    if np.abs(proba.sum(axis=1) - 1).max() > 1e-4:
        return "rows do not sum to one"
    ties = np.ptp(scores, axis=1) == 0
    if (fitted.classes_[proba.argmax(axis=1)] != labels)[~ties].any():
        return "labels and probabilities"
    if (fitted.classes_[scores.argmax(axis=1)] != labels)[~ties].any():
        return "labels and scores"
    if (pickle.loads(pickle.dumps(fitted)).predict_proba(queries) != proba).any():
        return "the pickle"
    if (clone(fitted).fit(X, y).predict_proba(queries) != proba).any():
        return "the clone"
    return None


@pytest.mark.filterwarnings("ignore:Zero-shot")
def test_random_exponential_blends_keep_the_labels_of_float64(times, rng, report):
    n_tried, wrong, least, most = times(150, 5000), [], 1.0, -1.0
    for _ in range(n_tried):
        # z1 is about CLIP's, SigLIP's, or negative; z2 and z3 are larger than z1.
        n_classes, width = int(rng.integers(3, 12)), int(rng.choice([16, 64, 128]))
        gap = rng.normal(size=width)
        gap /= np.linalg.norm(gap)
        texts = rng.normal(size=(n_classes, width)) / np.sqrt(width)
        texts += rng.choice([0.0, -0.3, -3.0]) * gap
        head = TextHead.from_features(range(n_classes), texts)
        y = np.repeat(np.arange(n_classes), 6)
        X = 0.3 * head.text_features[y] + 0.9 * gap
        X = (X + rng.uniform(0.01, 0.05) * rng.normal(size=X.shape)).astype(np.float32)
        lambdas = 10 ** rng.uniform(-3, 3, size=3) * (rng.random(3) < 0.5)
        lambdas[rng.integers(3)] = 1.0
        alpha, beta, gamma = 100 * np.sqrt(rng.random(3))
        classifier = SeMoBridgeClassifier(
            head,
            bridge="identity",
            blending="exponential",
            **{f"lambda_{i + 1}": lambdas[i] for i in range(3)},
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            smoothness=4 * rng.random(),
        )
        found = disagreement(classifier, X[::2], y[::2], X[1::2])
        exact = clone(classifier).fit(X[::2].astype(float), y[::2])
        expected = exact.predict(X[1::2].astype(float))
        # Scores that are all but equal may be ranked either way.
        if found or (classifier.predict(X[1::2]) != expected).mean() > 0.1:
            wrong.append((found, classifier))
        z1 = exact.component_logits(X)[0]
        least, most = min(least, z1.min()), max(most, z1.max())
    report("random exponential blends, in float32", n_tried, wrong=len(wrong))
    assert not wrong
    assert least < -0.8
    assert most > 0.3


def test_random_parameters_give_answers_that_agree(times, rng, report):
    n_tried, refused, wrong = times(150, 5000), 0, []
    for _ in range(n_tried):
        head, (X, y), queries = clip_like(rng)
        classifier = random_classifier(rng, head)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = disagreement(classifier, X, y, queries)
            except ValueError as error:
                # A setting without effect, or without weights, is refused by name.
                by_name = "has no effect", "must be positive"
                found = None if any(name in str(error) for name in by_name) else error
                refused += 1
        if found:
            wrong.append((found, classifier))
    report(
        "random parameters of the classifiers",
        n_tried,
        refused=refused,
        wrong=len(wrong),
    )
    assert not wrong
    assert refused < n_tried / 2


def degenerate(rng):
    """Few embeddings of unequal classes: binary, constant, repeated, or all alike."""
    n_classes, width = int(rng.integers(2, 7)), int(rng.choice([1, 2, 4, 16, 40]))
    y = np.repeat(np.arange(n_classes), rng.integers(1, 6, size=n_classes))
    X = rng.normal(size=(n_classes, width))[y]
    kind = rng.integers(5)
    if kind == 0:
        X = (X > 0).astype(float)
    elif kind == 1:
        X[:, : (width + 1) // 2] = X[0, : (width + 1) // 2]
    elif kind == 2:
        X[:] = X[0]
    elif kind == 3:
        X += 0.2 * rng.normal(size=X.shape)
    order = rng.permutation(len(y))
    eos = rng.normal(size=(n_classes, width + 2))
    heads = [
        None,
        TextHead.from_features(range(n_classes), eos[:, :width]),
        TextHead.from_features(
            range(n_classes), eos[:, :width], text_bank=rng.normal(size=(70, width))
        ),
        TextHead.from_arrays(
            range(n_classes), eos=eos, projection=rng.normal(size=(width + 2, width))
        ),
    ]
    dtype = rng.choice([np.float32, np.float64])
    return X[order].astype(dtype), y[order], heads[rng.integers(len(heads))]


def inside(rng, classifier):
    """A meta-estimator of scikit-learn with this classifier in it, or a search."""
    few = {"cv": 2}
    logistic = LogisticRegression()
    makers = [
        lambda: classifier,
        lambda: make_pipeline(StandardScaler(), classifier),
        lambda: CalibratedClassifierCV(classifier, ensemble=rng.random() < 0.5, **few),
        lambda: BaggingClassifier(classifier, 3, random_state=0),
        lambda: VotingClassifier([("a", classifier), ("b", logistic)], voting="soft"),
        lambda: StackingClassifier([("a", classifier)], logistic, **few),
        lambda: OneVsRestClassifier(classifier),
        lambda: AdaBoostClassifier(classifier, n_estimators=3),
        lambda: GridSearchCV(classifier, {"lambda_3": [0.5, 2]}, **few),
        lambda: SelfTrainingClassifier(classifier, max_iter=2),
        lambda: FewShotSearchCV(classifier, n_settings=3),
    ]
    return makers[rng.integers(len(makers))]()


# What the data, and not a mistake of the library, makes impossible.
_REFUSALS = re.compile(
    r"rows of X in fit are all zero|at least two classes|sum to zero, so that"
    r"|has no effect|must be positive|has the labels 0 and 1 only"
    r"|sample_weight is zero everywhere"
    # scikit-learn's own.
    r"|less than 2 examples for at least one class|cannot be greater than the number"
    r"|worse than random|training fold, but|2 fits failed"
)


def contradiction(fitted, queries):
    """Name what is wrong with the answers of a fitted estimator, or None."""
    labels, proba = fitted.predict(queries), fitted.predict_proba(queries)
    if not np.isfinite(proba).all():
        return "not finite"
    if np.abs(proba.sum(axis=1) - 1).max() > 1e-4:
        return "rows do not sum to one"
    # One-vs-rest ranks by scores that its probabilities do not follow.
    if isinstance(fitted, OneVsRestClassifier):
        return None
    # Meta-estimators round, and then break ties in their own way.
    own = proba[np.arange(len(labels)), np.searchsorted(fitted.classes_, labels)]
    return (
        "labels and probabilities" if (proba.max(axis=1) - own > 1e-6).any() else None
    )


def test_random_data_in_meta_estimators_are_refused_or_consistent(times, rng, report):
    n_tried, refused, wrong = times(150, 5000), 0, []
    for _ in range(n_tried):
        X, y, head = degenerate(rng)
        classifier = [SeMoBridgeClassifier, BridgedGDAClassifier][rng.integers(2)]
        params = some(rng, bridge=["auto", "identity"], lambda_3=(0.1, 10))
        if classifier is SeMoBridgeClassifier and rng.random() < 0.5:
            params |= some(rng, gamma=(0, 100), beta=(0, 100), lambda_2=(0, 10))
            params["blending"] = "exponential"
        elif classifier is BridgedGDAClassifier:
            params |= some(rng, shrinkage=(1e-3, 10), temperature=(1e-3, 1e3))
        estimator = inside(rng, classifier(head, **params))
        weights = {}
        if rng.random() < 0.3 and isinstance(estimator, (classifier, FewShotSearchCV)):
            weights["sample_weight"] = rng.integers(0, 3, size=len(y))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = contradiction(estimator.fit(X, y, **weights), X)
            except ValueError as error:
                found = None if _REFUSALS.search(str(error)) else error
                refused += 1
        if found:
            wrong.append((found, estimator))
    report(
        "degenerate data in meta-estimators", n_tried, refused=refused, wrong=len(wrong)
    )
    assert not wrong
    assert refused < n_tried / 2
