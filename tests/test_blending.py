import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax as scipy_log_softmax

from skbridge._classifiers.blend import (
    Blend,
    BlendStack,
    Term,
    text_divergence,
    weighted_sums,
)
from skbridge._rows import log_softmax, softmax, unit


def test_unit_leaves_zero_rows_at_zero():
    assert_allclose(unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]])


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e5])
def test_log_softmax_agrees_with_scipy_at_every_scale(scale):
    scores = scale * np.random.default_rng(0).normal(size=(5, 7))
    assert_allclose(log_softmax(scores), scipy_log_softmax(scores, axis=1), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("exponent", [-5, -10, -30])
def test_softmax_ranks_as_the_scores_however_close_they_are(dtype, exponent):
    rng = np.random.default_rng(0)
    scores = (10.0**exponent * rng.random((50, 7))).astype(dtype)
    first = scores.argmax(axis=1)
    proba = softmax(scores.copy(), 0.01)
    np.testing.assert_array_equal(proba.argmax(axis=1), first)
    assert proba.dtype == dtype
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)


def test_softmax_of_equal_scores_is_uniform():
    np.testing.assert_array_equal(softmax(np.full((2, 4), 3.0), 100.0), 0.25)


def class_weights(divergence, smoothness):
    """Weights of the classes in an exponential blend of z3 alone, at z3 = 1."""
    ones = np.ones((1, len(divergence)))
    blend = Blend((0.0, 0.0, 1.0), (1.0, 1.0, 1.0), smoothness, divergence)
    return blend.scores((None, None, ones))[0]


def test_sharpened_terms_are_those_of_the_official_code():
    z = np.random.default_rng(0).uniform(-1, 1, size=(4, 2))
    blend = Blend((0.5, 0.0, 2.0), (4.0, 1.0, 3.0), 0.5, np.array([0.0, 2.0]))
    weights = np.exp([0.0, 1.0])
    assert_allclose(blend.part(0, z), 0.5 * np.exp(-4 * (1 - z)))
    assert_allclose(blend.part(2, z), 2 * weights * np.exp(-3 * (1 - z)))
    assert_allclose(blend.scores((z, None, z)), blend.part(0, z) + blend.part(2, z))
    assert blend.skip == (1,)


def test_weighted_sums_give_a_stack_of_scores_in_the_terms_dtype():
    terms = list(np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32))
    weights = np.array([[1.0, 2.0, 3.0], [0.5, 0.0, 0.0]])
    sums = weighted_sums(weights, terms)
    assert sums.dtype == np.float32
    expected = [terms[0] + 2 * terms[1] + 3 * terms[2], terms[0] / 2]
    assert_allclose(sums, expected, rtol=1e-5)


def test_class_weights_grow_where_text_and_prototype_disagree():
    T = np.eye(3)
    prototypes = unit(np.array([[1.0, 0, 0], [0, 1, 1], [1, 0, 0.1]]))
    weights = class_weights(text_divergence(prototypes, T), 1.0)
    assert weights[0] < weights[1] < weights[2]
    assert_allclose(class_weights(text_divergence(prototypes, T), 0.0), 1)
    assert_allclose(class_weights(text_divergence(prototypes, None), 1.0), 1)


def test_class_weights_follow_their_equation():
    rng = np.random.default_rng(0)
    F, T = unit(rng.normal(size=(4, 6))), unit(rng.normal(size=(4, 6)))
    p = np.exp(F @ T.T)
    p = np.diag(p / p.sum(axis=1, keepdims=True))
    expected = np.exp(0.7 * np.log2((1 + 1e-6) / (p + 1e-6)))
    assert_allclose(class_weights(text_divergence(F, T), 0.7), expected, rtol=1e-12)


def test_default_temperature_is_the_logit_scale_over_the_slope():
    def temperature(lambdas, sharpness=None):
        return Blend(lambdas, sharpness).default_temperature

    assert temperature((1, 0, 0)) == 100.0
    assert temperature((1, 2, 1)) == 25.0
    assert temperature((1, 2, 1), (4, 5, 6)) == 5.0
    # A flat blend has no slope to divide by.
    assert temperature((1, 2, 1), (0, 0, 0)) == 100.0


@pytest.mark.parametrize("sharpness", [None, (4.0, 5.0, 6.0)])
def test_stacked_and_folded_blends_agree_with_single_ones(sharpness):
    rng = np.random.default_rng(0)
    X, T, F = (unit(rng.normal(size=(n, 6))) for n in (5, 3, 3))
    kl = text_divergence(F, T)
    smoothness = 0.0 if sharpness is None else 0.7
    terms = (Term(unit, T), None, Term(unit, F))
    components = (X @ T.T, None, X @ F.T)
    blends = [
        Blend((a, 0.0, b), sharpness, smoothness, kl) for a, b in ((1, 0.5), (0, 2.0))
    ]
    stack = BlendStack(blends).scores(components, np.array([1.0, 3.0]))
    for factor, blend, scores in zip((1, 3), blends, stack, strict=True):
        assert_allclose(scores, factor * blend.scores(components))
        folded = blend.fold(terms, 5, X.dtype)
        assert_allclose(folded(X), blend.scores(components))
        assert_allclose(folded(X[1:3]), blend.scores(components)[1:3])
