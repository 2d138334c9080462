"""Fits on the folds, and the component logits of the held-out shots."""

from dataclasses import dataclass

import numpy as np
from sklearn.base import clone

from skbridge._held_out.selection import value_key
from skbridge._held_out.temperature import BLOCK_SCORES
from skbridge._rows import batches
from skbridge._texts.head import check_text_head


@dataclass(frozen=True)
class HeldOut:
    """One fit, and the component logits of the shots held out of it.

    Attributes
    ----------
    fitted : few-shot classifier
    components : tuple of ndarray or None
    columns : ndarray of shape (n_samples,)
        Column of each shot's class; -1 where the fit does not know the class.
    weight : ndarray of shape (n_samples,)
    """

    fitted: object
    components: tuple
    columns: np.ndarray
    weight: np.ndarray

    def take(self, rows) -> "HeldOut":
        """Select some of the held-out shots."""
        return HeldOut(
            self.fitted,
            _take_rows(self.components, rows),
            self.columns[rows],
            self.weight[rows],
        )

    def variants(self, blends):
        """Copy the fit under other blend parameters."""
        return [self.fitted.reblend(**blend) for blend in blends]

    def stacks(self, stacked_blends, factors):
        """Score blocks of shots under many settings, times one factor per setting.

        Yields
        ------
        stack : ndarray of shape (n_settings, n_samples, n_classes)
        columns, weight : ndarray of shape (n_samples,)
        """
        n_scores = len(factors) * len(self.fitted.classes_)
        for rows in batches(len(self.columns), BLOCK_SCORES // n_scores):
            stack = stacked_blends.scores(_take_rows(self.components, rows), factors)
            yield stack, self.columns[rows], self.weight[rows]


def _take_rows(components, rows):
    return tuple(None if z is None else z[rows] for z in components)


def stack_variants(variants):
    """Stack the blends of copies of one fit, to be evaluated together."""
    return variants[0].stack_blends([variant.blend_ for variant in variants])


class Texts:
    """Texts of all classes, made once for each setting of the texts.

    Parameters
    ----------
    estimator : few-shot classifier
    classes : ndarray of shape (n_classes,)
    n_features : int
    """

    def __init__(self, estimator, classes, n_features):
        self.estimator = estimator
        self.classes = classes
        self.n_features = n_features
        self._resolved = {}

    def estimator_with(self, params):
        """Unfitted copy with other parameters, whose texts are a TextHead or None."""
        estimator = clone(self.estimator).set_params(**clone(params, safe=False))
        key = tuple(
            (name, value_key(value))
            for name, value in sorted(params.items())
            if name.split("__")[0] == "texts"
        )
        if key not in self._resolved:
            head = estimator.resolve_texts(self.classes)
            check_text_head(head, self.n_features)
            self._resolved[key] = head
        return estimator.set_params(texts=self._resolved[key])


@dataclass(frozen=True, eq=False)
class FoldFits:
    """Fits of one classifier on the training part of each fold.

    A classifier with `leave_out` is fitted once on all shots, and the held-out shots of
    each fold are then left out of that fit.

    Attributes
    ----------
    texts : Texts
        Source of unfitted classifiers.
    X, y, weight : ndarray
        Valid shots of positive weight.
    folds : list of (train, test)
    """

    texts: Texts
    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    folds: list

    def held_out(self, fixed, blends):
        """Fit on one fold after another.

        Parameters
        ----------
        fixed : dict
            Parameters that need a fit of their own.
        blends : list of dict
            Blend parameters of the settings that the fit serves: components to which
            none of them gives weight are not computed.

        Yields
        ------
        HeldOut

        Raises
        ------
        ValueError
            If a fit fails.
        """
        estimator, first = self._first_fit(fixed, blends)
        skip = _components_without_weight(first, blends)
        for number, (train, test) in enumerate(self.folds):
            if hasattr(estimator, "leave_out"):
                fitted = self._leave_out(estimator, first, train)
            elif number == 0:
                fitted = first
            else:
                fitted = self._fit(estimator, train)
            columns = np.searchsorted(fitted.classes_, self.y[test])
            columns[columns == len(fitted.classes_)] = 0
            columns[fitted.classes_[columns] != self.y[test]] = -1
            components = fitted.component_logits(self.X[test], skip=skip)
            yield HeldOut(fitted, components, columns, self.weight[test])

    def _first_fit(self, fixed, blends):
        """Fit on all shots if shots can be left out, otherwise on the first fold.

        The blend parameters of the estimator may contradict those of the setting. Then
        those of some setting are used instead.
        """
        failure = None
        for blend in [{}, *blends]:
            try:
                estimator = self.texts.estimator_with(fixed | blend)
                rows = self.folds[0][0]
                if hasattr(estimator, "leave_out"):
                    rows = slice(None)
                return estimator, self._fit(estimator, rows)
            except ValueError as error:
                if str(error) == str(failure):
                    break
                failure = error
        raise failure

    def _fit(self, estimator, rows):
        return clone(estimator).fit(
            self.X[rows], self.y[rows], sample_weight=self.weight[rows]
        )

    def _leave_out(self, estimator, all_fitted, train):
        """Fit on a training part, by leaving out the other shots where possible."""
        seen = np.bincount(train, minlength=len(self.X))
        has_all_classes = len(np.unique(self.y[train])) == len(self.texts.classes)
        if seen.max() > 1 or not has_all_classes:
            return self._fit(estimator, train)
        rows = np.flatnonzero(seen == 0)
        if not len(rows):
            return all_fitted
        return all_fitted.leave_out(
            self.X[rows], self.y[rows], sample_weight=self.weight[rows]
        )


def _components_without_weight(fitted, blends):
    """Positions of the components to which none of the blends gives weight."""
    skipped = None
    for blend in blends:
        try:
            own = set(fitted.reblend(**blend).blend_.skip)
        except ValueError:
            continue
        skipped = own if skipped is None else skipped & own
    return tuple(skipped or ())
