"""Base class of the two bridged classifiers: the bridge, class sums, z1 and z2."""

from copy import copy

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from skbridge._bridge import choose_bridge, idle_cuts, make_bridge
from skbridge._class_sums import ClassSums
from skbridge._classifiers.base import FewShotClassifier
from skbridge._classifiers.blend import BlendStack, LinearView, Term
from skbridge._classifiers.labels import check_naming
from skbridge._messages import shown
from skbridge._rows import unit, within_range
from skbridge._validation import (
    all_or_nothing,
    at_common_scale,
    check_embeddings,
    check_kind_of_labels,
    check_labels,
    check_shots,
    check_zero_rows,
)

# A search tries these multiples of the lambda_3 that suits the number of shots.
_LAMBDA_FACTORS = 2.0 ** np.arange(-4, 4.5, 0.5)
# Logit scale of CLIP and of nearly all its successors: the bound of their training.
USUAL_LOGIT_SCALE = 100.0
# A setting that leaves the parameters of the bridge without effect.
_NO_TEXTS = "texts=None, which makes the bridge the identity"


def _adds_shots(estimator):
    if getattr(estimator, "mode", "closed_form") == "closed_form":
        return True
    # available_if raises its own AttributeError from this one.
    raise AttributeError(
        "partial_fit and leave_out need mode='closed_form', but mode is "
        f"{estimator.mode!r}, which learns from all shots at once. Call fit with the "
        "old and the new shots, or without the shots to leave out."
    )


class BridgedClassifier(FewShotClassifier):
    """Base class of the classifiers that compare queries through the bridge.

    A subclass implements

    - ``_sum_shots(X, codes, weight)``, which sums shots to a `ClassSums`;
    - ``_set_sums(sums)``, which derives the class vectors from them;
    - ``_z3_term()``, the term of z3, and ``_z3_shot_parts``, its parts by shot;
    - ``_auto_lambda_3(class_count)``, its weight by default.
    """

    def _start_bridge(self, X):
        """Make the bridge, and set the fitted attributes that need no shots."""
        self._bridge = self._make_bridge(X.shape[1], X.dtype, **self._bridge_options())
        self.bridge_ = self._bridge.kind
        self._sums = None

    def _make_bridge(self, n_features, dtype, **options):
        return make_bridge(self.text_head_, n_features, **options).astype(dtype)

    def _idle_parameters(self):
        if self.text_head_ is None and self.bridge != "identity":
            yield ("bridge",), _NO_TEXTS
        kind = choose_bridge(self.text_head_) if self.bridge == "auto" else self.bridge
        for names, reason in idle_cuts(kind, self.bridge):
            yield [name for name in names if hasattr(self, name)], reason

    def _bridge_options(self):
        return {"bridge": self.bridge, "bridge_rank": self.bridge_rank}

    def _add_shots(self, X, codes, weight):
        """Add shots to the class sums, and derive the class vectors again."""
        sums = self._sum_shots(X, codes, weight)
        self._set_sums(sums if self._sums is None else self._sums + sums)

    def _sum_shots(self, X, codes, weight) -> ClassSums:
        raise NotImplementedError

    def _set_sums(self, sums: ClassSums):
        """Set the class sums and the prototypes F'."""
        cancelled = ~sums.features.any(axis=1)
        if cancelled.any():
            raise ValueError(
                f"The shots of the classes {shown(self.classes_[cancelled].tolist())} "
                "sum to zero, so that these have no prototype. Check their embeddings."
            )
        self._sums = sums
        self.class_count_ = sums.count
        self.inverse_projection_ = self._bridge.inverse
        self.prototypes_ = unit(sums.features).astype(self._bridge.inverse.dtype)

    def _z3_term(self) -> Term:
        raise NotImplementedError

    def _terms(self):
        """Terms of z1, z2 and z3; None for z1 without texts."""
        texts = self._text_features
        z1 = None if texts is None else Term(unit, texts)
        if self._bridge.bias is None:
            view = LinearView(self._bridge.compact)
            z2 = Term(view, self._bridge.coordinates(self.prototypes_))
        else:
            z2 = Term(self._bridge.bridged, self.prototypes_)
        return z1, z2, self._z3_term()

    def _components(self, X, skip):
        return tuple(
            None if term is None or i in skip else term.cosines(X)
            for i, term in enumerate(self._terms())
        )

    def _scorer(self, n_rows, dtype):
        dtype = np.result_type(dtype, self.prototypes_)
        return self.blend_.fold(self._terms(), n_rows, dtype)

    @staticmethod
    def stack_blends(blends):
        """Evaluate many blends of one fitted classifier together."""
        return BlendStack(blends)

    def shot_parts(self, query, X, label, sample_weight=None):
        """Divide z2 and z3 of a query, for one class, among the shots of that class.

        Both are cosines with a sum over shots, so that each shot contributes one
        summand exactly.

        Parameters
        ----------
        query : array-like of shape (1, n_features)
            One image embedding.
        X : array-like of shape (n_shots, n_features)
            All shots of the class that the classifier was fitted on.
        label : label
            The class, one of `classes_`.
        sample_weight : array-like of shape (n_shots,), default=None
            The weights of the shots in the fit.

        Returns
        -------
        ndarray of shape (2, n_shots)
            Parts of z2 and of z3. They sum to z2 and z3, unless the classifier counts
            a class text as a shot.
        """
        check_is_fitted(self)
        query = within_range(check_embeddings(self, query, reset=False))
        X = at_common_scale(check_embeddings(self, X, reset=False))
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        k = int(np.flatnonzero(self.classes_ == label)[0])
        (bridged,) = self._bridge.bridged(query)
        in_z2 = weight * (X @ bridged) / np.linalg.norm(weight @ X)
        return np.stack([in_z2, self._z3_shot_parts(query, X, weight, k)])

    def _z3_shot_parts(self, query, X, weight, k):
        """Parts of the shots of class k in z3."""
        raise NotImplementedError

    def bridge_embeddings(self, X):
        """Bridge queries to unit(q^), the embeddings that z2 compares.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings, not normalised.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        X = within_range(check_embeddings(self, X, reset=False))
        return self._bridge.bridged(X)

    # lambda_3="auto"

    def _auto_lambda_3(self, class_count) -> float:
        """``lambda_3="auto"`` for numbers of shots per class."""
        raise NotImplementedError

    def _lambda_3(self, class_count=None):
        """Weight of z3, for numbers of shots per class other than those of the fit."""
        if self.lambda_3 == "auto":
            count = self.class_count_ if class_count is None else class_count
            return self._auto_lambda_3(count)
        return float(self.lambda_3)

    def _lambda_1(self):
        return 0.0 if self._text_features is None else float(self.lambda_1)

    def search_space(self, n_shots, head):
        prior = self.search_prior(n_shots, head)
        space = {name: [value] for name, value in prior.items()}
        if "lambda_3" in prior:
            space["lambda_3"] = (prior["lambda_3"] * _LAMBDA_FACTORS).tolist()
        return space

    # Adding and leaving out shots

    @available_if(_adds_shots)
    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Add shots, of known classes or new ones; equal to `fit` on all of them.

        Available in closed form only, where the classifier depends on the shots
        through their sums per class. The first call may have one class only. The kind
        of bridge that ``bridge="auto"`` chose in it stays.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings.
        y : array-like of shape (n_samples,)
            Labels. New ones join `classes_`.
        classes : array-like of shape (n_classes,), default=None
            Labels to expect; a label of y outside them is an error. Unlike in
            scikit-learn, they are only a check: a class joins `classes_` with its first
            shot.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each shot.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            As for `fit`; and if a new class has no text, or if the bridge is the
            subspace of the class texts, which a new class would change.
        """
        shots = check_shots(
            self, X, y, sample_weight, reset=not hasattr(self, "classes_")
        )
        self._grow(*shots, classes)
        self._finish_fit()
        return self

    def _grow(self, X, y, weight, classes):
        """Add validated shots, as `partial_fit` says."""
        if classes is not None:
            classes = check_labels(self, classes)
            check_kind_of_labels(y, np.asarray(classes), "classes")
            unexpected = np.setdiff1d(y, classes)
            if len(unexpected):
                raise ValueError(
                    f"y has the labels {shown(unexpected.tolist())}, which are not in "
                    "classes. Add them to classes, or omit classes."
                )
        if not hasattr(self, "classes_"):
            self._set_classes(X, np.unique(y))
            self._check_idle_parameters()
            if self._text_features is not None and len(self.classes_) > 1:
                codes = np.searchsorted(self.classes_, y)
                check_naming(X, codes, self.text_head_, self.texts, self.classes_)
            self._start_bridge(X)
        else:
            check_zero_rows(X, "partial_fit", error=self._text_features is not None)
            self._add_classes(np.setdiff1d(y, self.classes_))
        self._add_shots(
            X.astype(self._bridge.inverse.dtype, copy=False),
            np.searchsorted(self.classes_, y),
            weight,
        )

    def _add_classes(self, new):
        if not len(new):
            return
        head = self.text_head_
        if self.bridge_ == "text_subspace" and head.text_bank is None:
            raise ValueError(
                f"The new classes {shown(new.tolist())} would change the bridge, which "
                "is the subspace of the class texts. Give the text head a text_bank, "
                "or fit on all shots."
            )
        merged = np.concatenate([self.classes_, new])
        order = np.argsort(merged)
        self.text_head_ = head = self.resolve_texts(merged[order])
        self.classes_ = merged[order]
        self._sums = self._sums.with_new_classes(len(new), order)
        if self._text_features is not None:
            dtype = self._text_features.dtype
            self._text_features = head.text_features.astype(dtype)
        # L and E depend on all classes. The kind stays, since the sums depend on it.
        self._bridge = self._make_bridge(
            self.n_features_in_,
            self._bridge.inverse.dtype,
            **self._bridge_options() | {"bridge": self.bridge_},
        )

    @available_if(_adds_shots)
    def leave_out(self, X, y, sample_weight=None):
        """Copy of the classifier without some of its shots.

        Equal, up to rounding, to a fit on the other shots, and much faster: the sums
        of the shots are subtracted. Three results of `fit` do not change: the automatic
        temperature, the threshold of `reject`, and the division of unlabelled images
        among the classes. Available in closed form only.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Shots that `fit` or `partial_fit` saw.
        y : array-like of shape (n_samples,)
            Their labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Their weights in the fit.

        Returns
        -------
        FewShotClassifier
            A fitted classifier of the same classes.

        Raises
        ------
        ValueError
            If a class would be left without shots, or y has an unknown label.
        """
        check_is_fitted(self)
        X, y, weight = check_shots(self, X, y, sample_weight, reset=False)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y has the labels {shown(unknown.tolist())}, which the classifier was "
                "not fitted on. Leave out shots that fit or partial_fit saw."
            )
        codes = np.searchsorted(self.classes_, y)
        other = copy(self)
        left_out = self._sum_shots(
            X.astype(self._bridge.inverse.dtype, copy=False), codes, weight
        )
        sums = self._sums - left_out
        empty = sums.count <= 1e-9 * self._sums.count
        if empty.any():
            raise ValueError(
                f"The classes {shown(self.classes_[empty].tolist())} would be left "
                "without shots. Fit on the other shots instead."
            )
        other._set_sums(sums)
        other._finish_fit()
        return other
