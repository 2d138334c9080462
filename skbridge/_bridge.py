"""The bridge from image to text embeddings, in closed form. NumPy only."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from numbers import Integral, Real

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted

from skbridge._messages import warn
from skbridge._rows import unit, within_range
from skbridge._texts.head import check_text_head
from skbridge._validation import all_or_nothing, check_embeddings

BRIDGES = ("auto", "pseudo_inverse", "text_subspace", "identity")

BRIDGE_RANK_CONSTRAINT = [
    Interval(Integral, 1, None, closed="left"),
    Interval(RealNotInt, 0, 1, closed="right"),
    None,
]

_DEFAULT_SUBSPACE_RANK = 250
_SMALL_BANK = 64


@lru_cache(maxsize=4)
def _svd_of_bytes(content, shape):
    factors = np.linalg.svd(
        np.frombuffer(content, dtype=np.float64).reshape(shape), full_matrices=False
    )
    for factor in factors:
        factor.flags.writeable = False
    return factors


def _svd(matrix):
    """SVD in float64, cached by content so that one serves every cut and fold."""
    matrix = np.asarray(matrix, dtype=np.float64)
    return _svd_of_bytes(matrix.tobytes(), matrix.shape)


def _eps(array):
    """Relative rounding error of an array's type; that of float64 for integers."""
    return np.finfo(np.result_type(array, np.float16)).eps


def _leading_directions(matrix, eps, atol, rank, name):
    """SVD of `matrix` in float64, cut by value (`atol`), count or energy (`rank`)."""
    u, s, vt = _svd(matrix)
    # A singular value below this bound is rounding error in the type of the given
    # numbers, and its inverse is noise.
    noise = eps * max(np.shape(matrix)) * s[0]
    if isinstance(rank, Real) and not isinstance(rank, Integral):
        energy = np.cumsum(s[s > noise] ** 2)
        # Rounding must not push a share of 1 beyond the last direction.
        last = min(int(np.searchsorted(energy, rank * energy[-1])), len(energy) - 1)
        n_directions = last + 1
    elif rank is None:
        n_directions = int(np.count_nonzero(s > max(atol, noise)))
        if n_directions == 0:
            raise ValueError(
                f"pinv_atol={atol!r} cuts every singular value of {name}; the "
                f"largest is {s[0]:.6g}. Use a smaller pinv_atol than that, or set "
                "bridge_rank."
            )
    else:
        full = int(np.count_nonzero(s > noise))
        if rank > full:
            raise ValueError(
                f"bridge_rank={rank} is more than the rank of {name}, which is "
                f"{full}. Use a bridge_rank of at most {full}."
            )
        n_directions = rank
    return u[:, :n_directions], s[:n_directions], vt[:n_directions]


def truncated_pseudo_inverse(projection, *, atol=0.3, rank=None):
    """Pseudo-inverse of a text projection without its weak directions.

    Parameters
    ----------
    projection : ndarray of shape (n_text_features, n_features)
        CLIP's text projection W, ``text = eos @ W``.
    atol : float, default=0.3
        Singular values at or below ``max(atol, eps * max(W.shape) * s_max)`` count as
        zero, eps being that of W's dtype. 0.3 is the value of the official code.
    rank : int or float, default=None
        Alternative to `atol`: the number of singular directions or, for a float in
        (0, 1], their share of the sum of squared singular values.

    Returns
    -------
    ndarray of shape (n_features, n_text_features), float64

    Raises
    ------
    ValueError
        If no singular value is left, or `rank` exceeds the rank of W.
    """
    u, s, vt = _leading_text_directions(projection, atol, rank)
    return (vt.T / s) @ u.T


def _leading_text_directions(projection, atol, rank):
    return _leading_directions(
        projection, _eps(projection), atol, rank, "the text projection"
    )


def text_subspace(bank, *, rank=None):
    """Leading principal directions of a bank of text features.

    They replace the row space of the text projection where that is not available, as
    for embeddings from an API.

    Parameters
    ----------
    bank : ndarray of shape (n_texts, n_features)
        Text features, one row per text.
    rank : int or float, default=None
        Number of directions or, for a float in (0, 1], their share of the sum of
        squared singular values. None means the smaller of 250 and the rank of the
        centred bank.

    Returns
    -------
    ndarray of shape (rank, n_features), float64
        Orthonormal rows.

    Raises
    ------
    ValueError
        If all texts are the same, or `rank` exceeds the rank of the centred bank.
    """
    eps, bank = _eps(bank), np.asarray(bank, dtype=np.float64)
    centred = bank - bank.mean(axis=0)
    # Centring equal rows leaves rounding error, whose directions are noise. It is
    # measured against the bank before centring.
    scale = np.abs(bank).max()
    if np.abs(centred).max() <= eps * len(bank) * scale:
        raise ValueError(
            f"The text bank holds {len(bank)} equal text features, which span no "
            "subspace. Give a text_bank of varied texts, or bridge='identity'."
        )
    _, _, vt = _leading_directions(centred, eps, 0.0, rank, "the centred text bank")
    return vt if rank is not None else vt[:_DEFAULT_SUBSPACE_RANK]


@dataclass(frozen=True, eq=False)
class Bridge:
    """The triple (W, W+, E) that a `bridge` option stands for, with c and L.

    Attributes
    ----------
    kind : {"pseudo_inverse", "text_subspace", "identity"}
        The option.
    projection : ndarray of shape (n_text_features, n_features)
        W, from text tokens to the joint space.
    inverse : ndarray of shape (n_features, n_text_features)
        W+, from the joint space to text tokens.
    eos_unit : ndarray of shape (n_classes, n_text_features) or None
        E, unit class tokens; None without class texts.
    bias : ndarray of shape (n_features,) or None
        c, the projection's bias; None means zero.
    length : float
        L, the norm of every bridged token. It cancels where there is no bias.
    root : ndarray of shape (n_features, rank) or None
        W+ up to a rotation, without the columns that the cut leaves empty: it gives
        rows the same length as W+ does. None if W+ is not from a cut.
    basis : ndarray of shape (n_features, rank) or None
        Orthonormal columns V, the singular directions above the cut, with
        ``W+ W = V V'``. None if W+ is not from a cut.
    """

    kind: str
    projection: np.ndarray
    inverse: np.ndarray
    eos_unit: np.ndarray | None = None
    bias: np.ndarray | None = None
    length: float = 1.0
    root: np.ndarray | None = None
    basis: np.ndarray | None = None

    @cached_property
    def joint(self):
        """W+ W, which bridges an embedding to the joint space up to length."""
        return self.inverse @ self.projection

    @property
    def compact(self):
        """`joint` in the coordinates of the basis: fewer columns, the same cosines."""
        return self.joint if self.basis is None else self.basis

    def coordinates(self, rows):
        """Rows of the joint space in the coordinates of `compact`."""
        return rows if self.basis is None else rows @ self.basis

    def centred(self, X):
        """Embeddings minus the projection's bias, ``f - c``."""
        return X if self.bias is None else X - self.bias

    def to_text(self, X):
        """Bridged tokens ``L u / ||u||`` with ``u = (f - c) W+``."""
        return self.length * unit(self.centred(X) @ self.inverse)

    def to_joint(self, tokens):
        """Project tokens as CLIP projects its own: ``e W + c``."""
        joint = tokens @ self.projection
        return joint if self.bias is None else joint + self.bias

    def bridged(self, X, out=None):
        """Bridge embeddings to unit(f^)."""
        return unit(self.to_joint(self.to_text(X)), out)

    def astype(self, dtype):
        """Copy with every array in `dtype`."""

        def cast(array):
            return None if array is None else np.asarray(array, dtype=dtype)

        return replace(
            self,
            projection=cast(self.projection),
            inverse=cast(self.inverse),
            eos_unit=cast(self.eos_unit),
            bias=cast(self.bias),
            root=cast(self.root),
            basis=cast(self.basis),
        )


def choose_bridge(head):
    """Choose the kind of bridge that ``bridge="auto"`` stands for.

    Parameters
    ----------
    head : TextHead or None

    Returns
    -------
    {"pseudo_inverse", "text_subspace", "identity"}
        The pseudo-inverse where the text projection is known, the text subspace where
        a bank of texts or at least 64 class texts span it, the identity otherwise.
    """
    if head is None:
        return "identity"
    if head.projection is not None:
        return "pseudo_inverse"
    enough = head.text_features is not None and len(head.text_features) >= _SMALL_BANK
    return "text_subspace" if head.text_bank is not None or enough else "identity"


def idle_cuts(kind, bridge):
    """List the parameters of a cut that a kind of bridge does not use.

    Parameters
    ----------
    kind : {"pseudo_inverse", "text_subspace", "identity"}
        The bridge in use.
    bridge : str
        The parameter that led to it.

    Returns
    -------
    list of (tuple of str, str)
        Names of parameters, and the setting that gives them no effect.
    """
    chosen = ", which is the identity here" if kind == "identity" else ""
    if kind == "text_subspace":
        chosen = ", which is the text subspace here"
    reason = f"bridge={bridge!r}{chosen if bridge == 'auto' else ''}"
    names = {"text_subspace": ("pinv_atol",), "identity": ("pinv_atol", "bridge_rank")}
    return [(names[kind], reason)] if kind in names else []


def make_bridge(head, n_features, *, bridge="auto", pinv_atol=0.3, bridge_rank=None):
    """Compute the bridge that the options name.

    Parameters
    ----------
    head : TextHead or None
        The text side. Without one there is only the identity.
    n_features : int
        Width of the embeddings.
    bridge : {"auto", "pseudo_inverse", "text_subspace", "identity"}
        Triple to use: ``(W, W+, E)``, ``(V', V, unit(T V))`` or ``(I, I, T)``;
        ``"auto"`` as in :func:`choose_bridge`.
    pinv_atol, bridge_rank
        The cut, see :func:`truncated_pseudo_inverse` and :func:`text_subspace`.

    Returns
    -------
    Bridge
        In float64.

    Raises
    ------
    ValueError
        If the head lacks what `bridge` needs, or the cut leaves nothing.
    """
    kind = choose_bridge(head) if bridge == "auto" else bridge
    texts = None if head is None else head.text_features
    if kind == "pseudo_inverse":
        return _pseudo_inverse_bridge(head, pinv_atol, bridge_rank)
    if kind == "text_subspace":
        return _text_subspace_bridge(head, bridge_rank)
    return Bridge(
        kind, projection=np.eye(n_features), inverse=np.eye(n_features), eos_unit=texts
    )


def _pseudo_inverse_bridge(head, pinv_atol, bridge_rank):
    if head is None or head.projection is None:
        raise ValueError(
            "bridge='pseudo_inverse' needs CLIP's text projection, and "
            f"{_lacking(head)}. Make a head with TextHead.from_clip or "
            "TextHead.from_arrays(projection=...), or use bridge='text_subspace' or "
            "bridge='auto'."
        )
    u, s, vt = _leading_text_directions(head.projection, pinv_atol, bridge_rank)
    root = vt.T / s
    return Bridge(
        "pseudo_inverse",
        projection=np.asarray(head.projection, dtype=np.float64),
        inverse=root @ u.T,
        eos_unit=head.eos_unit,
        bias=head.projection_bias,
        length=head.eos_length,
        root=root,
        basis=vt.T,
    )


def _lacking(head):
    return "texts is None" if head is None else "this text head has none"


def _text_subspace_bridge(head, bridge_rank):
    if head is None or (head.text_bank is None and head.text_features is None):
        raise ValueError(
            "bridge='text_subspace' needs a text_bank or class texts, and "
            f"{_lacking(head)}. Make a head with "
            "TextHead.from_features(text_bank=...), or use bridge='auto'."
        )
    texts = head.text_features
    bank = texts if head.text_bank is None else head.text_bank
    if head.text_bank is None and len(bank) < _SMALL_BANK:
        warn(
            f"bridge='text_subspace' takes its directions from the {len(bank)} class "
            f"texts; fewer than {_SMALL_BANK} span too little of the text subspace. "
            "Give the text head a text_bank of many varied texts.",
            stacklevel=2,
        )
    directions = text_subspace(bank, rank=bridge_rank)
    eos_unit = None if texts is None else unit(texts @ directions.T)
    return Bridge(
        "text_subspace",
        projection=directions,
        inverse=directions.T,
        eos_unit=eos_unit,
        basis=directions.T,
    )


class SemanticBridge(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Bridge image embeddings into CLIP's text modality.

    The pseudo-inverse W+ of CLIP's text projection maps an image embedding f to the
    text token ``e^ = L u / ||u||`` with ``u = (f - c) W+``, and the projection maps
    this to the joint embedding ``f^ = e^ W + c``, which can be compared with images
    like a text embedding.

    Parameters
    ----------
    texts : TextHead, default=None
        The text side; it needs no classes. None bridges by the identity: rows are
        only scaled to length 1.
    bridge : {"auto", "pseudo_inverse", "text_subspace", "identity"}, default="auto"
        ``"pseudo_inverse"`` uses the head's text projection,
        ``"text_subspace"`` the leading principal directions of its text bank,
        ``"identity"`` neither. ``"auto"`` is the first of these for which the head
        has the arrays; 64 class texts make a bank.
    pinv_atol : float, default=0.3
        Singular values of the text projection at or below this count as zero.
        0.3 is the official code's value.
    bridge_rank : int or float, default=None
        Alternative to `pinv_atol`: the number of singular (or principal) directions
        or, for a float in (0, 1], their share of the sum of squared singular values.
    output : {"joint", "text"}, default="joint"
        ``"joint"`` gives f^, with as many columns as the input; ``"text"`` gives the
        tokens e^.

    Attributes
    ----------
    bridge_ : {"pseudo_inverse", "text_subspace", "identity"}
        The kind of bridge in use.
    inverse_projection_ : ndarray of shape (n_features, n_text_features)
        W+.
    n_features_in_ : int
        Width of the embeddings seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the embedding's columns, where `fit` saw string names.

    See Also
    --------
    SeMoBridgeClassifier : Few-shot classification through the bridge.

    Notes
    -----
    Without a projection bias c the length L cancels in every cosine, and
    bridging is, up to length, the orthogonal projection W+ W onto the right
    singular vectors of W above the cut.

    References
    ----------
    .. [1] "SeMoBridge: Semantic Modality Bridge for Efficient Few-Shot
       Adaptation of CLIP", arXiv:2509.26036, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge import SemanticBridge, TextHead
    >>> head = TextHead.from_arrays(projection=np.diag([2.0, 1.0, 0.1]))
    >>> bridge = SemanticBridge(head)
    >>> bridge.fit_transform([[3.0, 4.0, 5.0]]).round(3)
    array([[0.702, 0.936, 0.   ]], dtype=float32)
    """

    _parameter_constraints = {
        "texts": "no_validation",
        "bridge": [StrOptions(set(BRIDGES))],
        "pinv_atol": [Interval(Real, 0, None, closed="left")],
        "bridge_rank": BRIDGE_RANK_CONSTRAINT,
        "output": [StrOptions({"joint", "text"})],
    }

    def __init__(
        self,
        texts=None,
        *,
        bridge="auto",
        pinv_atol=0.3,
        bridge_rank=None,
        output="joint",
    ):
        self.texts = texts
        self.bridge = bridge
        self.pinv_atol = pinv_atol
        self.bridge_rank = bridge_rank
        self.output = output

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X, y=None):
        """Compute the bridge from the text head; only the width of X is used.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings.
        y : None
            Ignored.

        Returns
        -------
        SemanticBridge
            The fitted transformer.

        Raises
        ------
        ValueError
            If X and the text head have different widths, the head lacks what
            `bridge` needs, or the cut leaves no direction.
        """
        X = check_embeddings(self, X, reset=True)
        check_text_head(self.texts, self.n_features_in_)
        self._check_idle_cuts()
        self._bridge = make_bridge(
            self.texts,
            self.n_features_in_,
            bridge=self.bridge,
            pinv_atol=self.pinv_atol,
            bridge_rank=self.bridge_rank,
        ).astype(X.dtype)
        self.bridge_ = self._bridge.kind
        self.inverse_projection_ = self._bridge.inverse
        return self

    def _check_idle_cuts(self):
        kind = choose_bridge(self.texts) if self.bridge == "auto" else self.bridge
        idle = idle_cuts(kind, self.bridge)
        if self.bridge_rank is not None:
            idle.append((("pinv_atol",), "bridge_rank, which replaces it"))
        given = {"pinv_atol": self.pinv_atol != 0.3, "bridge_rank": self.bridge_rank}
        for names, reason in idle:
            for name in names:
                if given[name]:
                    raise ValueError(
                        f"{name}={getattr(self, name)!r} has no effect with {reason}. "
                        f"Omit {name}, or change the other parameter."
                    )

    def transform(self, X):
        """Bridge image embeddings.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings. Without a projection bias, their lengths do not matter.

        Returns
        -------
        ndarray of shape (n_samples, n_features) or (n_samples, n_text_features)
            f^ or e^, by `output`. An embedding that the bridge maps to zero
            gives a zero token.
        """
        check_is_fitted(self)
        X = within_range(check_embeddings(self, X, reset=False))
        tokens = self._bridge.to_text(X)
        return tokens if self.output == "text" else self._bridge.to_joint(tokens)

    @property
    def _n_features_out(self):
        axis = 1 if self.output == "text" else 0
        return self.inverse_projection_.shape[axis]
