import subprocess
import sys

import numpy as np
import pytest
import reference
import torch
from numpy.testing import assert_allclose
from sklearn.exceptions import NotFittedError

from skbridge import (
    SeMoBridgeClassifier,
    TextHead,
)


def recipe(texts=None, **params):
    """Classifier with the official cut and fixed weights."""
    cut = {"pinv_atol": 0.3}
    if {"bridge", "bridge_rank", "pinv_atol"} & params.keys() or texts is None:
        cut = {}
    return SeMoBridgeClassifier(texts, **cut | {"lambda_3": 0.5} | params)


SHAPES = {"square": (5, 5), "wide": (4, 7), "tall": (7, 4)}


def problem(shape, with_bias, seed=0):
    """A head with its arrays, and unequal shots of three classes."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=shape)
    c = rng.normal(size=shape[1]) * 0.1 if with_bias else np.zeros(shape[1])
    eos = rng.normal(size=(3, shape[0])) + 0.5
    T = eos @ W + c
    T /= np.linalg.norm(T, axis=1, keepdims=True)
    E = eos / np.linalg.norm(eos, axis=1, keepdims=True)
    head = TextHead.from_arrays(
        ["a", "b", "c"],
        eos=eos,
        projection=W,
        projection_bias=c if with_bias else None,
        logit_scale=20.0,
    )
    y = np.array([0, 1, 2, 0, 2, 0])
    X = 3 * (T[y] + 0.3 * rng.normal(size=(len(y), shape[1])))
    weight = np.array([1.0, 0.5, 2.0, 1.0, 1.0, 3.0])
    arrays = {"W": W, "c": c, "eos": eos, "E": E, "T": T, "scale": 20.0}
    return head, arrays, X, y, weight


@pytest.mark.parametrize("csb", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_adamw_follows_the_official_recipe_step_by_step(shape, with_bias, csb):
    head, arrays, X, y, weight = problem(SHAPES[shape], with_bias)
    classifier = recipe(
        texts=head, mode="trained", solver="adamw", max_iter=600, csb=csb
    )
    classifier.fit(X, y, sample_weight=weight)
    P, b, losses = reference.train(X, y, weight, **arrays, atol=0.3, csb=csb, steps=600)
    assert_allclose(classifier.loss_curve_, losses, rtol=0, atol=1e-9)
    assert_allclose(classifier.inverse_projection_, P, rtol=0, atol=1e-9)
    assert_allclose(classifier.class_bias_, b, rtol=0, atol=1e-9)
    assert classifier.n_iter_ == 600
    # The comparison means nothing unless training has moved far from its start.
    start = reference.pseudo_inverse(arrays["W"], 0.3)
    assert np.abs(classifier.inverse_projection_ - start).max() > 1e-2
    assert losses[-1] < losses[0]


def test_bias_enters_the_prototypes_and_never_a_query():
    head, arrays, X, y, weight = problem((4, 7), True)
    classifier = recipe(texts=head, mode="trained", solver="adamw", max_iter=50)
    classifier.fit(X, y, sample_weight=weight)
    W, c = arrays["W"], arrays["c"]
    L = np.linalg.norm(arrays["eos"], axis=1).mean()

    def bridged(f, b):
        u = (f - c) @ classifier.inverse_projection_ + b
        return L * u / np.linalg.norm(u) @ W + c

    for k in range(3):
        shots = np.array([bridged(f, classifier.class_bias_[k]) for f in X[y == k]])
        mean = np.average(shots, axis=0, weights=weight[y == k])
        expected = mean / np.linalg.norm(mean)
        assert_allclose(classifier.bridged_prototypes_[k], expected, atol=1e-10)
    query = bridged(X[0], 0.0)
    _, z2, _ = classifier.component_logits(X[:1])
    expected = classifier.prototypes_ @ query / np.linalg.norm(query)
    assert_allclose(z2[0], expected, atol=1e-10)


def test_training_lowers_the_loss_and_moves_the_bias_only_with_csb():
    head, _, X, y, _ = problem((5, 5), False)
    options = {"texts": head, "mode": "trained", "solver": "adamw", "max_iter": 40}
    with_bias = recipe(**options, learning_rate=1e-2).fit(X, y)
    without = recipe(**options, csb=False).fit(X, y)
    assert with_bias.loss_curve_[-1] < with_bias.loss_curve_[0]
    assert np.abs(with_bias.class_bias_).min(axis=1).all()
    assert not without.class_bias_.any()


TRAININGS = [{"solver": "adamw"}, {"early_stopping": False}, {}, {"csb": False}]


@pytest.mark.parametrize("params", TRAININGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_computes_in_the_dtype_of_the_embeddings(dtype, params):
    head, _, X, y, _ = problem((4, 7), True)
    classifier = fast(texts=head, max_iter=5, **params)
    classifier.fit(X.astype(dtype), y)
    for name in (
        "inverse_projection_",
        "class_bias_",
        "prototypes_",
        "bridged_prototypes_",
    ):
        assert getattr(classifier, name).dtype == dtype, name


def test_float32_training_stays_near_float64():
    head, _, X, y, _ = problem((4, 7), True)
    classifier = recipe(texts=head, mode="trained", solver="adamw", max_iter=100)
    double = classifier.fit(X, y).bridged_prototypes_
    single = classifier.fit(X.astype(np.float32), y).bridged_prototypes_
    # A hundred AdamW steps amplify float32 rounding beyond the usual 1e-4.
    assert_allclose(single, double, atol=1e-3)


def test_repeated_shots_train_as_their_weight():
    head, _, X, y, _ = problem((4, 7), False)
    classifier = recipe(texts=head, mode="trained", solver="adamw", max_iter=30)
    weight = np.array([1, 2, 1, 3, 1, 0])
    weighted = classifier.fit(X, y, sample_weight=weight).inverse_projection_
    rows = np.repeat(np.arange(len(y)), weight)
    repeated = classifier.fit(X[rows], y[rows]).inverse_projection_
    assert_allclose(weighted, repeated, rtol=1e-9, atol=1e-12)


def test_training_twice_gives_the_same_and_leaves_the_seed_alone():
    head, _, X, y, _ = problem((4, 7), False)
    classifier = recipe(texts=head, mode="trained", solver="adamw", max_iter=10)
    state = torch.random.get_rng_state()
    first = classifier.fit(X, y).inverse_projection_
    assert_allclose(classifier.fit(X, y).inverse_projection_, first, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_text_free_training_uses_the_image_losses_alone():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(m, 1, size=(4, 6)) for m in (-1, 1)])
    y = np.repeat([0, 1], 4)
    options = {
        "mode": "trained",
        "solver": "adamw",
        "max_iter": 3,
        "lambda_b": 0,
    }
    classifier = recipe(**options).fit(X, y)
    unit_X = X / np.linalg.norm(X, axis=1, keepdims=True)
    F = np.stack([unit_X[y == k].mean(axis=0) for k in (0, 1)])
    F /= np.linalg.norm(F, axis=1, keepdims=True)

    def cross_entropy(logits):
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return -log_p[np.arange(len(y)), y].mean()

    logits = unit_X @ F.T
    expected = 0.5 * cross_entropy(100 * logits) + 0.1 * cross_entropy(logits)
    assert_allclose(classifier.loss_curve_[0], expected, rtol=1e-12)


def test_tol_stops_once_the_loss_has_settled():
    head, _, X, y, _ = problem((5, 5), False)
    options = {
        "texts": head,
        "mode": "trained",
        "solver": "adamw",
        "max_iter": 5000,
    }
    stopped = recipe(**options, tol=0.05).fit(X, y)
    assert 500 < stopped.n_iter_ < 5000
    assert len(stopped.loss_curve_) == stopped.n_iter_


def test_divergence_names_the_step_and_the_learning_rate():
    head, _, X, y, _ = problem((5, 5), False)
    classifier = recipe(
        texts=head,
        mode="trained",
        max_iter=30,
        learning_rate=1e38,
        weight_decay=1e38,
    )
    with pytest.raises(ValueError, match=r"diverged: .* at step \d+\. Lower learning"):
        classifier.fit(X, y)


def test_divergence_without_a_learning_rate_names_what_else_can_be_lowered():
    head, _, X, y, _ = problem((5, 5), False)
    classifier = fast(texts=head, early_stopping=False, lambda_c=1e308)
    with pytest.raises(ValueError, match=r"diverged: .* Lower lambda_it, lambda_c"):
        classifier.fit(X, y)


def test_unavailable_device_falls_back_with_a_warning(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    head, _, X, y, _ = problem((5, 5), False)
    classifier = recipe(
        texts=head, mode="trained", solver="adamw", max_iter=2, device="cuda"
    )
    with pytest.raises(NotFittedError):
        classifier.predict(X)
    with pytest.warns(UserWarning, match=r"(?i)cuda"):
        classifier.fit(X, y)
    assert classifier.n_iter_ == 2


def hidden_subspace(seed=0, n_classes=50, n_shots=8, width=96):
    """Classes that differ in 8 oblique directions only, under noise in all.

    The closed form weighs all directions alike, since the shots scatter alike in
    them; training can find the ones that tell classes apart.
    """
    fixed = np.random.default_rng(99)
    directions = np.linalg.qr(fixed.normal(size=(width, 8)))[0].T
    centres = fixed.normal(size=(n_classes, 8)) @ directions
    y = np.repeat(np.arange(n_classes), n_shots)
    rng = np.random.default_rng(seed)
    return centres[y] + 0.4 * rng.normal(size=(len(y), width)), y


def held_out_loss(classifier, X, y):
    """Log loss at the best of some temperatures."""
    scores = classifier.decision_function(X)
    losses = []
    for t in np.geomspace(1, 200, 60):
        logits = t * scores
        top = logits.max(axis=1)
        log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        losses.append((log_sum - logits[np.arange(len(y)), y]).mean())
    return min(losses)


def closed_form(classifier, X, y):
    kind, own = type(classifier), classifier.get_params()
    shared = kind(mode="closed_form").get_params().keys() - {
        *("early_stopping", "max_iter", "mode", "csb", "solver", "learning_rate"),
        *("weight_decay", "tol", "lambda_it", "lambda_c", "lambda_b"),
    }
    closed = kind(**{name: own[name] for name in shared}).fit(X, y)
    assert_allclose(
        classifier.decision_function(X), closed.decision_function(X), rtol=0, atol=0
    )
    return classifier.n_iter_ == 1 and classifier.loss_curve_.shape == (0,)


@pytest.mark.parametrize("bases", ["plain", "singular"])
@pytest.mark.parametrize("csb", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradient_are_those_of_the_equations_in_any_bases(
    shape, with_bias, csb, bases
):
    from skbridge._bridge import make_bridge
    from skbridge._held_out.shots import Shots
    from skbridge._training.basis import Basis
    from skbridge._training.objective import Objective, Task
    from skbridge._training.solvers import SCHEDULES

    head, arrays, X, y, weight = problem(SHAPES[shape], with_bias)
    bridge = make_bridge(head, X.shape[1], bridge="pseudo_inverse")
    losses = {"logit_scale": 20.0, "lambda_it": 0.3, "lambda_c": 0.4, "lambda_b": 0.7}
    task = Task(
        bridge=bridge,
        text_features=head.text_features,
        csb=csb,
        **losses,
        solver="fast",
        schedule=SCHEDULES["fast"],
        weight_decay=0.0,
        device="cpu",
    )
    rng = np.random.default_rng(1)
    W_plus = torch.tensor(bridge.inverse + 0.1 * rng.normal(size=bridge.inverse.shape))
    b = torch.tensor(rng.normal(size=(3, len(arrays["W"])))) if csb else None
    parameters = [W_plus, b] if csb else [W_plus]
    for parameter in parameters:
        parameter.requires_grad_(True)
    constants = [torch.tensor(a) for a in (X, y, weight)]
    constants += [torch.tensor(arrays[name]) for name in ("W", "c", "E", "T")]
    length = float(np.linalg.norm(arrays["eos"], axis=1).mean())
    expected = reference._loss(W_plus, b, *constants, length, *losses.values())
    gradients = torch.autograd.grad(expected, parameters)

    basis = getattr(Basis, bases)(bridge, X.dtype, "cpu")
    objective = Objective.of(Shots(X, y, weight), task, basis)
    moved = [basis.tokens(p.detach().numpy()).requires_grad_(True) for p in parameters]
    loss = objective.terms(*moved) @ objective.weights
    assert_allclose(loss.item(), expected.item(), rtol=1e-12)
    for found, gradient in zip(
        torch.autograd.grad(loss, moved), gradients, strict=True
    ):
        assert_allclose(basis.original(found), gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", [*SHAPES.values(), (6, 6)])
def test_singular_bases_make_the_projection_diagonal(shape, with_bias):
    from skbridge._bridge import Bridge
    from skbridge._training.basis import Basis

    rng = np.random.default_rng(0)
    # Of rank 4 at most: a projection may lack directions.
    W = rng.normal(size=(shape[0], 4)) @ rng.normal(size=(4, shape[1]))
    c = rng.normal(size=shape[1]) if with_bias else None
    bridge = Bridge("pseudo_inverse", W, np.linalg.pinv(W), bias=c)
    basis = Basis.singular(bridge, np.float64, "cpu")
    e, f = rng.normal(size=(3, shape[0])), rng.normal(size=(5, shape[1]))
    projected = basis.project(basis.tokens(e))
    assert_allclose(basis.joint(f) @ projected.T, f @ (e @ W).T, atol=1e-12)
    assert_allclose(projected @ projected.T, (e @ W) @ (e @ W).T, atol=1e-12)
    assert_allclose(basis.original(basis.tokens(e)), e, atol=1e-12)
    if with_bias:
        joint = basis.joint(c[None])
        assert_allclose(joint @ joint.T, [[c @ c]], atol=1e-12)
        assert_allclose(joint @ projected.T, [e @ W @ c], atol=1e-12)


def fast(**params):
    return recipe(mode="trained", **params)


def texts_of(**shape):
    """A text head whose texts lie near the centres of `hidden_subspace`."""
    X, y = hidden_subspace(7, **{"n_shots": 2} | shape)
    classes = np.unique(y)
    return TextHead.from_features(
        classes, [X[y == k].mean(axis=0) for k in np.unique(y)]
    )


def test_fast_solver_reaches_the_loss_of_the_recipe_in_a_tenth_of_its_steps():
    X, y = hidden_subspace(n_classes=10, n_shots=4, width=32)
    options = {"texts": texts_of(n_classes=10, width=32), "bridge": "identity"}
    recipe = fast(solver="adamw", **options).fit(X, y)
    quick = fast(early_stopping=False, **options).fit(X, y)
    assert len(recipe.loss_curve_) == 5000
    assert 20 < len(quick.loss_curve_) == quick.n_iter_ <= 500
    assert quick.loss_curve_[-1] <= 1.001 * recipe.loss_curve_[-1]
    assert recipe.loss_curve_[-1] < 0.9 * recipe.loss_curve_[0]


@pytest.mark.parametrize("csb", [True, False])
def test_fast_solver_goes_on_until_the_loss_settles_or_for_max_iter(csb):
    head, _, X, y, weight = problem((4, 7), True)
    options = {"texts": head, "early_stopping": False, "csb": csb}
    far = fast(**options, tol=0, max_iter=150).fit(X, y, weight)
    near = fast(**options, tol=1e-2).fit(X, y, weight)
    # The window in which the last evaluation falls is finished.
    assert 150 <= far.n_iter_ < 175
    assert near.n_iter_ < 100
    assert far.loss_curve_[-1] < near.loss_curve_[-1] < near.loss_curve_[0]
    assert far.class_bias_.any() == csb


def test_loss_terms_add_up_to_the_loss():
    head, _, X, y, _ = problem((4, 7), True)
    options = {"lambda_it": 0.3, "lambda_c": 0.4, "lambda_b": 0.7, "max_iter": 20}
    fitted = fast(texts=head, early_stopping=False, **options).fit(X, y)
    weights = {
        "image": 0.3,
        "text_eos": 0.35,
        "text_joint": 0.35,
        "consistency": 0.4,
        "bias": 0.7,
    }
    assert fitted.loss_terms_.keys() == weights.keys()
    total = sum(w * fitted.loss_terms_[name] for name, w in weights.items())
    assert_allclose(total, fitted.loss_curve_, rtol=1e-12)
    without = fast(texts=None, csb=False, early_stopping=False, max_iter=2).fit(X, y)
    assert list(without.loss_terms_) == ["image", "consistency"]
    closed = recipe(texts=head).fit(X, y)
    assert closed.loss_terms_ == {}


@pytest.mark.parametrize("texts", [True, False])
def test_early_stopping_of_the_bridge_takes_what_held_out_shots_like_best(texts):
    X, y = hidden_subspace(n_shots=4)
    head = {"texts": texts_of(), "bridge": "identity"} if texts else {}
    head |= {"lambda_3": "auto"}
    fitted = fast(**{"texts": None} | head).fit(X, y)
    assert fitted.n_iter_ in range(4, 61, 4)
    new = hidden_subspace(1, n_shots=20)
    closed = recipe(**{"texts": None} | head).fit(X, y)
    assert held_out_loss(fitted, *new) < held_out_loss(closed, *new)


def test_held_out_losses_end_once_they_rise_for_long():
    from skbridge._training.early_stopping import held_out_losses

    y, weight = np.arange(3), np.ones(3)

    def path(quality):
        for right in quality:
            yield right * np.eye(3) + np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])

    # Better, better, then worse and worse; the sharpness is fitted each time.
    quality = [1.0, 1.5, 3.0, 2.0, 1.5, 1.2, 1.1, 9.0]
    for patience, n_points in ((2, 5), (3, 6), (np.inf, 8)):
        losses, total = held_out_losses(
            [path(quality), path(quality)],
            [y, y],
            [weight, weight],
            1.0,
            patience=patience,
        )
        assert losses.shape == (n_points, 6)
        assert len(total) == 6
    assert (losses @ total).argmin() == 7


def test_single_shots_are_trained_on_for_a_set_number_of_steps_with_texts():
    X, y = hidden_subspace(n_shots=1)
    assert closed_form(fast(texts=None).fit(X, y), X, y)
    head = texts_of()
    assert fast(texts=head, bridge="identity").fit(X, y).n_iter_ == 56
    assert fast(texts=head, bridge="identity", max_iter=7).fit(X, y).n_iter_ == 7


def test_early_stopping_of_the_bridge_counts_weights_as_repetitions():
    X, y = hidden_subspace(n_shots=4)
    weight = np.random.default_rng(0).integers(1, 4, size=len(y))
    weighted = fast(texts=None).fit(X, y, sample_weight=weight)
    rows = np.repeat(np.arange(len(y)), weight)
    repeated = fast(texts=None).fit(X[rows], y[rows])
    assert weighted.n_iter_ == repeated.n_iter_ > 1
    assert_allclose(
        weighted.inverse_projection_,
        repeated.inverse_projection_,
        rtol=1e-9,
        atol=1e-10,
    )


@pytest.mark.parametrize("csb", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_many_shots_give_the_numbers_of_fewer_that_weigh_as_much(with_bias, csb):
    head, _, X, y, weight = problem((4, 5), with_bias)
    rows = np.repeat(np.arange(len(y)), 5)
    few = fast(texts=head, solver="adamw", max_iter=200, csb=csb)
    few.fit(X, y, sample_weight=5 * weight)
    many = fast(texts=head, solver="adamw", max_iter=200, csb=csb)
    many.fit(X[rows], y[rows], sample_weight=weight[rows])
    assert_allclose(many.loss_curve_, few.loss_curve_, rtol=0, atol=1e-9)
    assert_allclose(
        many.inverse_projection_, few.inverse_projection_, rtol=0, atol=1e-9
    )
    assert_allclose(many.class_bias_, few.class_bias_, rtol=0, atol=1e-9)


GROWTH = """
import resource
import numpy as np
from skbridge import SeMoBridgeClassifier, TextHead

rng = np.random.default_rng(0)
X, eos = rng.normal(size=(2, 1500, 16)).astype(np.float32)
W = np.eye(16, dtype=np.float32)
names = [f"{k:04}" for k in range(len(X))]
head = TextHead.from_arrays(names, eos=eos, projection=W)
for steps in (5, 35):
    SeMoBridgeClassifier(
        head, mode="trained", solver="adamw", max_iter=steps
    ).fit(X, names)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="its unit differs elsewhere")
def test_memory_does_not_grow_with_the_number_of_steps():
    # Small tensors kept for each step once held 13 MB each of freed memory here.
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GROWTH],
        capture_output=True,
        text=True,
        check=True,
    )
    few, many = (int(line) / 1024 for line in result.stdout.split())
    assert many - few < 150


def test_max_iter_limits_the_steps_of_every_solver():
    X, y = hidden_subspace(7, n_shots=4)
    options = {"texts": texts_of(), "bridge": "identity"}
    for max_iter in (1, 5, 80):
        # The default number of steps that early stopping compares is no limit.
        stopped = fast(max_iter=max_iter, **options).fit(X, y)
        assert stopped.n_iter_ <= max_iter
        # L-BFGS finishes a line search, of up to 25 evaluations.
        minimised = fast(early_stopping=False, max_iter=max_iter, **options)
        assert minimised.fit(X, y).n_iter_ <= max_iter + 25
        recipe = fast(solver="adamw", max_iter=max_iter, **options).fit(X, y)
        assert recipe.n_iter_ == max_iter
