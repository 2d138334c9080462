"""Held-out scores of many settings of one few-shot classifier."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone

from skbridge._held_out.selection import value_key, within_one_standard_error
from skbridge._held_out.temperature import (
    BLOCK_SCORES,
    PRIOR_SHOTS,
    best_ratios,
    fit_temperature,
    mean_spreads,
    sample_step,
    score_shots,
)
from skbridge._rows import batches, softmax
from skbridge._texts.head import check_text_head

# Settings that are blended at once.
_BLOCK_SETTINGS = 16
# Where the search for a temperature starts, in spreads of a shot's scores.
_TYPICAL_SHARPNESS = 3.0
# Means of equal scores may differ by rounding.
_SCORE_TOLERANCE = 1e-10


def hits(stack, columns):
    """Whether each shot is right, in a stack of scores."""
    return stack.argmax(axis=2) == columns


def log_likelihoods(stack, columns):
    """Log probability of each shot's class, as scikit-learn's log loss has it."""
    if (columns < 0).any():
        raise ValueError(
            "log loss needs a shot of every held-out class in the training part"
        )
    p = np.exp(-score_shots(stack, columns)[1])
    # scikit-learn's log loss keeps this distance from 0 and 1.
    eps = np.finfo(p.dtype).eps
    return np.log(np.clip(p, eps, 1 - eps))


STACK_SCORES = {
    None: hits,
    "accuracy": hits,
    "neg_log_loss": log_likelihoods,
}


@dataclass(frozen=True)
class Judge:
    """What scores held-out shots.

    Attributes
    ----------
    score : callable
        ``score(stack, columns)`` of single shots under many settings at once,
        averaged afterwards, or a scorer ``score(estimator, X, y, sample_weight=)``.
    stacked : bool
        Which of the two.
    weight : ndarray of shape (n_samples,) or None
        Sample weights that it takes.
    by_log_loss : bool
        Whether its scores are only reported, and log loss chooses.
    """

    score: Callable
    stacked: bool
    weight: np.ndarray | None
    by_log_loss: bool


class ScoredShots(ClassifierMixin, BaseEstimator):
    """A fitted classifier that has scored some rows already, for a scorer.

    For these rows it answers from the scores, and for others it asks the classifier.

    Parameters
    ----------
    classifier : few-shot classifier
        Fitted.
    X : ndarray of shape (n_samples, n_features)
    scores : ndarray of shape (n_samples, n_classes)
    """

    def __init__(self, classifier, X, scores):
        self.classifier = classifier
        self.X = X
        self.scores = scores

    def __getattr__(self, name):
        # Parameters and fitted attributes are those of the classifier.
        if name.startswith("__") or name == "classifier":
            raise AttributeError(name)
        return getattr(self.classifier, name)

    def _knows(self, X):
        return X is self.X or np.array_equal(X, self.X)

    def predict(self, X):
        """Most probable label of each row."""
        if not self._knows(X):
            return self.classifier.predict(X)
        return self.classes_[self.scores.argmax(axis=1)]

    def decision_function(self, X):
        """Blended logits."""
        if not self._knows(X):
            return self.classifier.decision_function(X)
        if len(self.classes_) == 2:
            return self.scores[:, 1] - self.scores[:, 0]
        return self.scores

    def predict_proba(self, X):
        """Class probabilities."""
        if not self._knows(X):
            return self.classifier.predict_proba(X)
        return softmax(self.scores.copy(), self.classifier.temperature_)

    def predict_log_proba(self, X):
        """Logarithm of the class probabilities."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))


@dataclass(frozen=True)
class HeldOut:
    """One fit, and the component logits of the shots that it did not see.

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
        """Only some of the held-out shots."""
        return HeldOut(
            self.fitted,
            take_rows(self.components, rows),
            self.columns[rows],
            self.weight[rows],
        )

    def variants(self, blends):
        """Copy the fit under other blend parameters."""
        return [self.fitted.reblend(**blend) for blend in blends]

    def stacks(self, stacked_blends, factors):
        """Give scores of many settings, times a factor each, for a block of shots.

        Yields
        ------
        stack : ndarray of shape (n_settings, n_samples, n_classes)
        columns, weight : ndarray of shape (n_samples,)
        """
        n_scores = len(factors) * len(self.fitted.classes_)
        for rows in batches(len(self.columns), BLOCK_SCORES // n_scores):
            stack = stacked_blends.scores(take_rows(self.components, rows), factors)
            yield stack, self.columns[rows], self.weight[rows]


def take_rows(components, rows):
    """Rows of component logits, of which some may be None."""
    return tuple(None if z is None else z[rows] for z in components)


def stack_variants(variants):
    """Blends of the copies of one fit, evaluated together."""
    return variants[0].stack_blends([variant.blend_ for variant in variants])


class Texts:
    """Texts of all classes, resolved once per setting that decides them.

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


class Evaluation:
    """Fits, held-out scores and the choice of one setting.

    Parameters
    ----------
    texts : Texts
        Gives the estimators.
    X, y, weight : ndarray
        Valid shots of positive weight.
    folds : list of (train, test)
    judge : Judge
    settings : list of dict

    Attributes
    ----------
    scores, fit_time, score_time : ndarray of shape (n_settings, n_folds)
        As in `cv_results_`; NaN for what failed.
    failures : dict
        First error of each setting that failed, by its index.
    log_losses : ndarray of shape (n_settings,)
        Mean held-out log loss, each setting at its best temperature; NaN where
        it decides nothing.
    best_index : int or None
        The chosen setting; None if all failed.
    best_temperature : float or None
        Its temperature.
    """

    def __init__(self, texts, X, y, weight, folds, judge, settings):
        self.texts, self.folds, self.judge = texts, folds, judge
        self.X, self.y, self.weight = X, y, weight
        self.settings = settings
        self.blend_names = {*texts.estimator.blend_parameters, "temperature"}
        shape = len(settings), len(folds)
        self.scores = np.full(shape, np.nan)
        self.fit_time, self.score_time = np.zeros(shape), np.zeros(shape)
        self.log_losses = np.full(len(settings), np.nan)
        self.failures = {}
        self.best_index, self.best_temperature = None, None
        self._losses, self._loss_weight = None, None
        # The last group: its parameters, and its folds.
        self._last = None, None
        # Ratios of temperatures found so far, by position, and their typical
        # sharpness: good starts for the next group.
        self._ratios, self._sharpness = {}, _TYPICAL_SHARPNESS

    def run(self, distance):
        """Score every setting on every fold, and choose.

        Parameters
        ----------
        distance : ndarray of shape (n_settings,)
            From the setting that needs no evidence.
        """
        if not self.folds:
            return
        groups = {}
        for index, setting in enumerate(self.settings):
            fixed, _ = self._split(setting)
            key = tuple((name, value_key(fixed[name])) for name in sorted(fixed))
            groups.setdefault(key, []).append(index)
        for rows in groups.values():
            self._evaluate_group(np.array(rows))
        self._choose(distance)
        if self.best_index is not None:
            self.best_temperature = self._temperature_of(self.settings[self.best_index])

    def _split(self, setting):
        """Parameters that need a fit of their own, and those of the blend."""
        fixed = {k: v for k, v in setting.items() if k not in self.blend_names}
        blend = {k: v for k, v in setting.items() if k in self.blend_names}
        return fixed, blend

    def _evaluate_group(self, rows):
        """Score settings that differ in blend parameters: one fit per fold."""
        parts = [self._split(self.settings[row]) for row in rows]
        fixed, blends = parts[0][0], [blend for _, blend in parts]
        held_out, fits = [], self._fits(fixed, blends)
        for fold in range(len(self.folds)):
            started = time.perf_counter()
            try:
                held_out.append(next(fits))
            except ValueError as error:
                self._fail(rows, error)
                return
            self.fit_time[rows, fold] = time.perf_counter() - started
        started = time.perf_counter()
        possible = []
        for position, (row, blend) in enumerate(zip(rows, blends, strict=True)):
            try:
                held_out[0].fitted.reblend(**blend)
                possible.append(position)
            except ValueError as error:
                self._fail([row], error)
        self._last = fixed, held_out
        group = rows[possible], [blends[position] for position in possible]
        if not self.judge.by_log_loss:
            for fold, held in enumerate(held_out):
                self._score(fold, held, *group)
            group = self._leading(*group)
        self._measure(held_out, *group)
        self.score_time[rows] = (time.perf_counter() - started) / self.scores[rows].size

    def _fits(self, fixed, blends):
        """Fit on one fold after another.

        In closed form all shots are fitted once, and a fold's held-out shots are left
        out of that fit.
        """
        estimator, first = self._first_fit(fixed, blends)
        skip = self._unweighed(first, blends)
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
        """Fit on all shots where shots can be left out, else on the first fold.

        The blend parameters of the estimator may contradict those of the setting:
        then those of some setting serve instead.
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

    def _leave_out(self, estimator, everything, train):
        """Fit on a fold's training part, by leaving the other shots out if possible."""
        seen = np.bincount(train, minlength=len(self.X))
        has_all_classes = len(np.unique(self.y[train])) == len(self.texts.classes)
        if seen.max() > 1 or not has_all_classes:
            return self._fit(estimator, train)
        rows = np.flatnonzero(seen == 0)
        if not len(rows):
            return everything
        return everything.leave_out(
            self.X[rows], self.y[rows], sample_weight=self.weight[rows]
        )

    def _unweighed(self, fitted, blends):
        """Positions of the components that none of the blends weighs."""
        skipped = None
        for blend in blends:
            try:
                own = set(fitted.reblend(**blend).blend_.skip)
            except ValueError:
                continue
            skipped = own if skipped is None else skipped & own
        return tuple(skipped or ())

    def _fail(self, rows, error):
        self.scores[rows] = np.nan
        for row in rows:
            self.failures.setdefault(int(row), error)

    def _score(self, fold, held_out, rows, blends):
        """Score settings on one fold, at the temperatures that they have."""
        variants = held_out.variants(blends)
        if not self.judge.stacked:
            self._ask_scorer(fold, held_out, rows, variants)
            return
        for block in batches(len(rows), _BLOCK_SETTINGS):
            temperatures = np.array([v.temperature_ for v in variants[block]])
            stacked = stack_variants(variants[block])
            try:
                values = [
                    self.judge.score(stack, columns)
                    for stack, columns, _ in held_out.stacks(stacked, temperatures)
                ]
            except ValueError as error:
                self._fail(rows[block], error)
            else:
                self._average(fold, held_out, rows[block], values)

    def _average(self, fold, held_out, rows, values):
        """Report the mean over a fold's shots of values that came in blocks."""
        self.scores[rows, fold] = np.average(
            np.concatenate(values, axis=1), axis=1, weights=held_out.weight
        )

    def _ask_scorer(self, fold, held_out, rows, variants):
        """Score settings one by one, with a scorer that may ask anything."""
        _, test = self.folds[fold]
        X, y, weight = self.X[test], self.y[test], self.judge.weight
        kwargs = {} if weight is None else {"sample_weight": weight[test]}
        for row, variant in zip(rows, variants, strict=True):
            scores = variant.blend_.scores(held_out.components)
            scored = ScoredShots(variant, X, scores)
            try:
                self.scores[row, fold] = self.judge.score(scored, X, y, **kwargs)
            except ValueError as error:
                self._fail([row], error)

    def _leading(self, rows, blends):
        """Pick the settings of a group that no other so far has beaten."""
        means = self.scores.mean(axis=1)
        if np.isnan(means).all():
            return rows[:0], []
        leads = means[rows] >= np.nanmax(means) - _SCORE_TOLERANCE
        return rows[leads], [blends[i] for i in np.flatnonzero(leads)]

    def _measure(self, held_out, rows, blends):
        """Log losses of settings and, where these decide, the scores to report."""
        known = [np.flatnonzero(held.columns >= 0) for held in held_out]
        step = sample_step(sum(map(len, known)))
        sample = [held.take(k[::step]) for held, k in zip(held_out, known, strict=True)]
        self._loss_weight = np.concatenate(
            [held.weight[k] for held, k in zip(held_out, known, strict=True)]
        )
        prior = PRIOR_SHOTS
        if len(self._loss_weight):
            prior *= sum(h.weight.sum() for h in sample) / self._loss_weight.sum()
        if self._losses is None:
            shape = len(self.scores), len(self._loss_weight)
            self._losses = np.full(shape, np.nan, dtype=self.X.dtype)
        variants = [held.variants(blends) for held in held_out]
        for block in batches(len(rows), _BLOCK_SETTINGS):
            stacked = [stack_variants(own[block]) for own in variants]
            defaults = np.array(
                [v.blend_.default_temperature for v in variants[-1][block]]
            )
            ones = np.ones(len(defaults))
            blended = [
                part
                for held, blends_of_fold in zip(sample, stacked, strict=True)
                for part in held.stacks(blends_of_fold, ones)
            ]
            position = len(rows), block.start
            ratios = self._find_ratios(position, blended, defaults, prior)
            losses = []
            for fold, held in enumerate(held_out):
                stacks = held.stacks(stacked[fold], ratios * defaults)
                found = [score_shots(stack, columns) for stack, columns, _ in stacks]
                right, lost = zip(*found, strict=True)
                losses.append(np.concatenate(lost, axis=1)[:, known[fold]])
                if self.judge.by_log_loss:
                    self._average(fold, held, rows[block], right)
            self._losses[rows[block]] = np.concatenate(losses, axis=1)

    def _find_ratios(self, position, blended, defaults, prior):
        """Best temperatures of some settings over their default ones.

        The settings at the same position of another group are mostly the same after
        another fit, and start from what was found there. Without such, settings
        start as sharp as those before them ended.
        """
        if position in self._ratios:
            ratios = best_ratios(blended, defaults, self._ratios[position], prior)
        else:
            spreads = defaults * mean_spreads(blended, len(defaults))
            spreads = np.where(spreads > 0, spreads, self._sharpness)
            start = self._sharpness / spreads
            ratios = best_ratios(blended, defaults, start, prior)
            self._sharpness = np.median(ratios * spreads)
        self._ratios[position] = ratios
        return ratios

    def _choose(self, distance):
        means = self.scores.mean(axis=1)
        if np.isnan(means).all():
            return
        if not self._losses.size:
            self.best_index = int(np.nanargmax(means))
            return
        weight = self._loss_weight
        self.log_losses = self._losses @ weight / weight.sum()
        if self.judge.by_log_loss:
            self.best_index = within_one_standard_error(self._losses, weight, distance)
            return
        ties = np.flatnonzero(means >= np.nanmax(means) - _SCORE_TOLERANCE)
        self.best_index = int(ties[np.argmin(self.log_losses[ties])])

    def _temperature_of(self, setting):
        """Temperature of least log loss of one setting's held-out scores."""
        fixed, blend = self._split(setting)
        last, held_out = self._last
        is_last = last is not None and all(last[k] is fixed[k] for k in fixed)
        folds = []
        for held in held_out if is_last else self._fits(fixed, [blend]):
            variant = held.fitted.reblend(**blend)
            scores = variant.blend_.scores(held.components)
            folds.append((scores, held.columns, held.weight))
        return fit_temperature(folds, variant.blend_.default_temperature)
