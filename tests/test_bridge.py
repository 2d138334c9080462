import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from skbridge import (
    BridgedGDAClassifier,
    SemanticBridge,
    SeMoBridgeClassifier,
    TextHead,
)
from skbridge._bridge import make_bridge, text_subspace, truncated_pseudo_inverse


@parametrize_with_checks([SemanticBridge(), SemanticBridge(output="text")])
def test_semantic_bridge_passes_the_common_checks(estimator, check):
    check(estimator)


@st.composite
def projections(draw, min_rows=1):
    """W of any shape: square, wide, tall, rank-deficient, of one row, at any scale."""
    n_rows = draw(st.integers(min_rows, 12))
    n_columns = draw(st.integers(1, 12))
    rank = draw(st.integers(1, min(n_rows, n_columns)))
    scale = 10.0 ** draw(st.integers(-6, 6))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    u, _ = np.linalg.qr(rng.normal(size=(n_rows, rank)))
    v, _ = np.linalg.qr(rng.normal(size=(n_columns, rank)))
    s = rng.uniform(0.5, 2.0, size=rank)
    return ((u * s) @ v.T * scale).astype(dtype), rank


def _numerically_full(W, rank):
    """Float32 rounding lifts zero singular values above the float64 noise bound."""
    return W.dtype == np.float64 or rank == min(W.shape)


@given(projections())
def test_pseudo_inverse_meets_the_four_penrose_conditions(drawn):
    W, _ = drawn
    W64 = W.astype(np.float64)
    # A cut relative to the scale takes the directions that rounding to float32
    # made up; the conditions then hold for W without them.
    atol = 1e-3 * np.linalg.norm(W64, 2)
    P = truncated_pseudo_inverse(W, atol=atol)
    u, s, vt = np.linalg.svd(W64, full_matrices=False)
    A = (u * np.where(s > atol, s, 0)) @ vt
    scale = np.abs(A).max()
    assert_allclose(A @ P @ A, A, atol=1e-10 * scale)
    assert_allclose(P @ A @ P, P, atol=1e-10 * np.abs(P).max())
    assert_allclose(A @ P, (A @ P).T, atol=1e-10)
    assert_allclose(P @ A, (P @ A).T, atol=1e-10)


@given(projections())
def test_uncut_pseudo_inverse_is_numpys(drawn):
    W, rank = drawn
    if not _numerically_full(W, rank):
        return
    W64 = W.astype(np.float64)
    expected = np.linalg.pinv(W64, rcond=np.finfo(float).eps * max(W.shape))
    P = truncated_pseudo_inverse(W, atol=0)
    assert_allclose(P, expected, atol=1e-9 * np.abs(expected).max())


@given(projections(), st.floats(0.0, 1.0))
def test_truncated_pseudo_inverse_inverts_its_own_truncated_matrix(drawn, where):
    W, _ = drawn
    u, s, vt = np.linalg.svd(W.astype(np.float64), full_matrices=False)
    real = s[s > 1e-4 * s[0]]
    # Between two singular values, so that rounding cannot move one over the cut.
    index = min(int(where * len(real)), len(real) - 1)
    below = real[index + 1] if index + 1 < len(real) else 1e-4 * s[0]
    atol = (real[index] + below) / 2
    if real[index] - below < 1e-6 * s[0]:
        return
    P = truncated_pseudo_inverse(W, atol=atol)
    truncated = (u[:, : index + 1] * s[: index + 1]) @ vt[: index + 1]
    expected = np.linalg.pinv(truncated, rcond=1e-10)
    assert_allclose(P, expected, atol=1e-8 * np.abs(expected).max())
    assert_allclose(
        P, truncated_pseudo_inverse(W, rank=index + 1), atol=1e-9 * np.abs(P).max()
    )


@given(projections(), st.data())
def test_bridge_without_bias_is_an_orthogonal_projection(drawn, data):
    W, rank = drawn
    keep = data.draw(st.integers(1, rank))
    M = truncated_pseudo_inverse(W, rank=keep) @ W.astype(np.float64)
    assert_allclose(M @ M, M, atol=1e-9)
    assert_allclose(M, M.T, atol=1e-9)
    assert_allclose(np.trace(M), keep, atol=1e-9)
    assert np.linalg.matrix_rank(M, tol=1e-6) == keep


def _bridge_of(W, bias=None, **options):
    head = TextHead.from_arrays(projection=W, projection_bias=bias)
    return SemanticBridge(head, **options)


def _well_conditioned(rng, n_rows, n_columns):
    u, _ = np.linalg.qr(rng.normal(size=(n_rows, min(n_rows, n_columns))))
    v, _ = np.linalg.qr(rng.normal(size=(n_columns, min(n_rows, n_columns))))
    return (u * rng.uniform(0.5, 2, size=u.shape[1])) @ v.T


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(6, 6), (4, 9), (9, 4), (1, 5)]),
    st.floats(1e-3, 1e3),
)
def test_bridging_ignores_the_length_of_the_embedding(seed, shape, scale):
    rng = np.random.default_rng(seed)
    bridge = _bridge_of(_well_conditioned(rng, *shape))
    X = rng.normal(size=(5, shape[1]))
    bridged = bridge.fit(X).transform(X)
    assert_allclose(bridge.transform(scale * X), bridged, rtol=1e-7, atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(6, 6), (4, 9), (9, 4)]))
def test_bridging_follows_an_orthogonal_change_of_basis(seed, shape):
    rng = np.random.default_rng(seed)
    W = _well_conditioned(rng, *shape)
    X = rng.normal(size=(5, shape[1]))
    Q, _ = np.linalg.qr(rng.normal(size=(shape[1], shape[1])))
    plain = _bridge_of(W).fit(X).transform(X)
    turned = _bridge_of(W @ Q).fit(X @ Q).transform(X @ Q)
    assert_allclose(turned, plain @ Q, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bridged_tokens_have_the_length_of_eos_tokens(dtype):
    rng = np.random.default_rng(0)
    eos = rng.normal(size=(5, 6))
    head = TextHead.from_arrays(
        list("abcde"), eos=eos, projection=_well_conditioned(rng, 6, 9)
    )
    X = rng.normal(size=(7, 9)).astype(dtype)
    tokens = SemanticBridge(head, output="text").fit_transform(X)
    assert tokens.dtype == dtype
    length = np.linalg.norm(eos, axis=1).mean()
    rtol = 1e-4 if dtype == np.float32 else 1e-7
    assert_allclose(np.linalg.norm(tokens, axis=1), length, rtol=rtol)


def test_joint_output_projects_the_text_output_with_its_bias():
    rng = np.random.default_rng(0)
    W, c = _well_conditioned(rng, 6, 9), rng.normal(size=9)
    X = rng.normal(size=(7, 9))
    tokens = _bridge_of(W, c, output="text").fit_transform(X)
    joint = _bridge_of(W, c, output="joint").fit_transform(X)
    assert_allclose(joint, tokens @ W + c, rtol=1e-7)
    u = (X - c) @ np.linalg.pinv(W)
    assert_allclose(tokens, u / np.linalg.norm(u, axis=1, keepdims=True), rtol=1e-7)


def test_text_subspace_spans_the_leading_principal_directions():
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    bank = rng.normal(size=(90, 12)) * np.arange(12, 0, -1) + 5
    V = text_subspace(bank, rank=4)
    components = PCA(n_components=4).fit(bank).components_
    assert_allclose(np.abs(V @ components.T), np.eye(4), atol=1e-9)
    X = rng.normal(size=(3, 12))
    head = TextHead.from_features(text_bank=bank)
    bridge = SemanticBridge(head, bridge="text_subspace", bridge_rank=4)
    expected = X @ V.T @ V
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert_allclose(bridge.fit_transform(X), expected, atol=1e-9)


def test_a_float_rank_is_a_share_of_the_squared_singular_values():
    W = np.diag([3.0, 2.0, 1.0, 0.0])
    ranks = {0.5: 1, 9 / 14: 1, 0.9: 2, 13 / 14: 2, 0.99: 3, 1.0: 3}
    for share, rank in ranks.items():
        P = truncated_pseudo_inverse(W, rank=share)
        assert np.linalg.matrix_rank(P) == rank, share
    bank = np.eye(4)[[0, 0, 1, 2]]
    assert text_subspace(bank, rank=1.0).shape == (2, 4)


@pytest.mark.parametrize("rank", [0.0, 1.5, -1])
def test_a_rank_that_is_neither_count_nor_share_is_refused(rank):
    with pytest.raises(ValueError, match=r"'bridge_rank' parameter .* \(0, 1\]|\(0.0"):
        _bridge_of(np.eye(3), bridge_rank=rank).fit(np.ones((2, 3)))


def test_text_subspace_rank_defaults_to_at_most_250():
    bank = np.random.default_rng(0).normal(size=(400, 300))
    assert text_subspace(bank).shape == (250, 300)
    assert text_subspace(bank[:40]).shape == (39, 300)


def test_class_texts_serve_as_the_bank_with_a_warning_when_few():
    rng = np.random.default_rng(0)
    T = rng.normal(size=(70, 8))
    names = [f"class {i}" for i in range(70)]
    X = rng.normal(size=(3, 8))
    many = SemanticBridge(TextHead.from_features(names, T), bridge="text_subspace")
    many.fit(X)
    few = TextHead.from_features(names[:5], T[:5])
    with pytest.warns(UserWarning, match=r"the 5 class texts;.* Give .* text_bank"):
        SemanticBridge(few, bridge="text_subspace").fit(X)


def test_identity_bridge_only_scales_to_unit_length():
    X = np.array([[3.0, 4.0], [0.0, 0.0]])
    assert_allclose(SemanticBridge().fit_transform(X), [[0.6, 0.8], [0.0, 0.0]])


def test_identity_option_wins_over_a_known_projection():
    X = np.array([[3.0, 4.0]])
    bridge = _bridge_of(np.array([[1.0, 0.0]]), bridge="identity")
    assert_allclose(bridge.fit_transform(X), [[0.6, 0.8]])


def test_noise_of_a_rank_deficient_projection_is_never_inverted():
    rng = np.random.default_rng(0)
    W = rng.normal(size=(20, 5)) @ rng.normal(size=(5, 20))
    P = truncated_pseudo_inverse(W, atol=0)
    assert np.abs(P).max() < 1e3
    assert np.linalg.matrix_rank(P) == 5


def test_a_cut_that_leaves_nothing_names_the_largest_singular_value():
    bridge = _bridge_of(np.diag([0.25, 0.125]))
    with pytest.raises(ValueError, match=r"pinv_atol=0\.3 cuts .* largest is 0\.25"):
        bridge.fit(np.ones((2, 2)))
    with pytest.raises(NotFittedError):
        bridge.transform(np.ones((2, 2)))


@pytest.mark.parametrize("bridge", ["pseudo_inverse", "text_subspace"])
def test_a_rank_beyond_the_matrix_is_an_error_that_gives_the_rank(bridge):
    rng = np.random.default_rng(0)
    head = (
        TextHead.from_arrays(projection=np.eye(3, 4))
        if bridge == "pseudo_inverse"
        else TextHead.from_features(text_bank=rng.normal(size=(4, 4)))
    )
    with pytest.raises(ValueError, match=r"bridge_rank=9 .* at most 3"):
        SemanticBridge(head, bridge=bridge, bridge_rank=9).fit(np.ones((2, 4)))


def test_a_bank_of_equal_texts_spans_nothing():
    head = TextHead.from_features(text_bank=np.full((70, 3), 0.1))
    with pytest.raises(ValueError, match="70 equal text features"):
        SemanticBridge(head, bridge="text_subspace").fit(np.ones((2, 3)))


def test_head_without_a_projection_says_which_bridges_remain():
    head = TextHead.from_features(text_bank=np.eye(3))
    with pytest.raises(ValueError, match=r"pseudo_inverse.*'text_subspace'"):
        SemanticBridge(head, bridge="pseudo_inverse").fit(np.ones((2, 3)))


def test_automatic_bridge_takes_what_the_head_has():
    X, rng = np.ones((2, 8)), np.random.default_rng(0)
    few, many = (rng.normal(size=(n, 8)) for n in (5, 70))
    heads = {
        "identity": [None, TextHead.from_features(range(5), few)],
        "text_subspace": [
            TextHead.from_features(range(5), few, text_bank=many),
            TextHead.from_features(range(70), many),
        ],
        "pseudo_inverse": [TextHead.from_arrays(projection=many)],
    }
    for kind, candidates in heads.items():
        for head in candidates:
            assert SemanticBridge(head).fit(X).bridge_ == kind


def test_head_without_features_has_no_text_subspace():
    head = TextHead.from_arrays(projection=np.eye(3))
    with pytest.raises(
        ValueError,
        match=r"needs a text_bank or class texts, and this text head has none",
    ):
        SemanticBridge(head, bridge="text_subspace").fit(np.ones((2, 3)))


def test_width_mismatch_names_both_widths_and_the_cause():
    head = TextHead.from_arrays(projection=np.eye(3))
    with pytest.raises(ValueError, match=r"X has 2 features.*has 3.*same CLIP"):
        SemanticBridge(head).fit(np.ones((2, 2)))


def test_something_else_as_text_head_is_refused():
    with pytest.raises(
        TypeError, match="texts must be a TextHead or None here, got ndarray"
    ):
        SemanticBridge(np.eye(3)).fit(np.ones((2, 3)))


@pytest.mark.parametrize(("output", "n_out"), [("joint", 4), ("text", 3)])
def test_feature_names_and_pandas_output(output, n_out):
    bridge = _bridge_of(np.eye(3, 4), output=output).set_output(transform="pandas")
    frame = bridge.fit_transform(np.ones((2, 4)))
    assert list(frame.columns) == [f"semanticbridge{i}" for i in range(n_out)]
    assert list(bridge.get_feature_names_out()) == list(frame.columns)


def test_clone_shares_the_text_head():
    bridge = _bridge_of(np.eye(3))
    assert clone(bridge).texts is bridge.texts


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(projections(min_rows=2))
def test_class_tokens_and_texts_pass_into_the_triple(drawn):
    W, rank = drawn
    rng = np.random.default_rng(0)
    eos = rng.normal(size=(3, W.shape[0])).astype(W.dtype)
    if not _numerically_full(W, rank) or not (eos @ W).any(axis=1).all():
        return
    head = TextHead.from_arrays(list("abc"), eos=eos, projection=W)
    bridge = make_bridge(head, W.shape[1], pinv_atol=0.0)
    assert_allclose(bridge.eos_unit, head.eos_unit)
    assert_allclose(bridge.length, np.linalg.norm(eos, axis=1).mean(), rtol=1e-6)
    assert bridge.inverse.dtype == np.float64


def test_rounding_of_float32_features_is_no_direction():
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(200, 8)) @ rng.normal(size=(8, 32))
    for dtype in (np.float32, np.float64):
        assert text_subspace(bank.astype(dtype)).shape == (8, 32)
    W = (rng.normal(size=(24, 8)) @ rng.normal(size=(8, 32))).astype(np.float32)
    inverse = truncated_pseudo_inverse(W, atol=0.0)
    assert np.linalg.matrix_rank(inverse) == 8
    assert np.abs(inverse).max() < 10


# Parameters without effect


@pytest.mark.parametrize("bridge", ["pseudo_inverse", "text_subspace"])
def test_a_named_bridge_is_not_replaced_where_there_are_no_texts(bridge):
    X, y = 1 + np.eye(4, 3), [0, 1, 0, 1]
    for estimator in (
        SemanticBridge(bridge=bridge),
        SeMoBridgeClassifier(None, bridge=bridge),
        BridgedGDAClassifier(None, bridge=bridge),
    ):
        with pytest.raises(
            ValueError,
            match=f"bridge='{bridge}' needs .* texts is Non|^bridge=.* texts=None",
        ):
            estimator.fit(X, y)


@pytest.mark.parametrize(
    ("setting", "idle"),
    [
        ({"bridge": "identity"}, {"pinv_atol": 7.0}),
        ({"bridge": "auto", "texts": None}, {"bridge_rank": 3}),
        ({"bridge": "text_subspace"}, {"pinv_atol": 0.1}),
        ({"bridge_rank": 2}, {"pinv_atol": 0.1}),
    ],
)
def test_semantic_bridge_refuses_a_cut_without_effect(setting, idle):
    head = TextHead.from_arrays(projection=np.eye(3))
    if setting.get("bridge") == "text_subspace":
        bank = np.random.default_rng(0).normal(size=(70, 3))
        head = TextHead.from_features(text_bank=bank)
    bridge = SemanticBridge(**{"texts": head} | setting | idle)
    (name,) = idle
    with pytest.raises(ValueError, match=f"^{name}=.* has no effect with"):
        bridge.fit(np.eye(3))
