"""Held-out scores of many settings of one few-shot classifier, and the choice."""

import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import numpy as np

from skbridge._held_out.selection import value_key, within_one_standard_error
from skbridge._held_out.temperature import (
    _BLOCK_SCORES,
    _PRIOR_SHOTS,
    _batches,
    _best_ratios,
    _sample_step,
    _spreads,
    fit_temperature,
    score_shots,
)
from skbridge._texts.head import check_text_head

# Settings that are blended at once, and scores that a block of their shots may hold:
# 1 MB in float32, for the cache.
_BLOCK_SETTINGS = 16
# Where the search for a temperature starts, in spreads of a shot's scores.
_TYPICAL_SHARPNESS = 3.0
# Means of equal scores may differ by rounding.
_SCORE_TOLERANCE = 1e-10
# Parameters that decide which texts an estimator has.
_TEXT_PARAMETERS = ("model", "pretrained", "text_head", "class_names", "templates")


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


@dataclass(frozen=True)
class _HeldOut:
    """One fold of one fit, and its held-out shots."""

    fitted: object
    components: tuple
    columns: np.ndarray
    weight: np.ndarray

    def take(self, rows):
        """Only some of the held-out shots."""
        parts = _take(self.components, rows)
        return _HeldOut(self.fitted, parts, self.columns[rows], self.weight[rows])

    def stacks(self, blend, factors):
        """Give scores of many settings, times a factor each, for a block of shots.

        Yields
        ------
        stack : ndarray of shape (n_settings, n_samples, n_classes)
        columns, weight : ndarray of shape (n_samples,)
        """
        n_scores = len(factors) * len(self.fitted.classes_)
        for rows in _batches(len(self.columns), _BLOCK_SCORES // n_scores):
            stack = blend(_take(self.components, rows), factors)
            yield stack, self.columns[rows], self.weight[rows]


def _take(components, rows):
    return tuple(None if z is None else z[rows] for z in components)


def _share_head(estimator, classes):
    """Resolve the texts of all classes once, for every fit that follows."""
    head = estimator._resolve_head(classes)

    def shared(labels):
        if head is None or head.classes is None or len(labels) == len(classes):
            return head
        return head[[head.classes[row] for row in np.searchsorted(classes, labels)]]

    return shared


def _remember(variant, X, components):
    """Let `variant` compare the rows X without computing anything again."""
    scorer = variant._scorer

    def recaller(n_rows, dtype):
        score = scorer(n_rows, dtype)

        def recall(queries, out):
            if np.array_equal(queries, X):
                return variant._blend(components)
            return score(queries, out)

        return recall

    variant._scorer = recaller


class Run:
    """One pass over the settings of a search: fits, held-out scores, the choice.

    Parameters
    ----------
    estimator : few-shot classifier
    X, y, weight : ndarray
        Valid shots of positive weight.
    folds : list of (train, test)
    judge : Judge

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

    def __init__(self, estimator, X, y, weight, folds, judge):
        self.estimator = estimator
        self.X = X
        self.y = y
        self.classes = np.unique(y)
        self.weight = weight
        self.folds = folds
        self.judge = judge
        self.blend_names = {*estimator._blend_parameters, "temperature"}
        self.heads, self.kept = {}, {}

    def with_texts(self, params):
        """Estimator with other parameters that knows its texts already."""
        estimator = copy(self.estimator)
        vars(estimator).update(params)
        key = tuple(
            (name, value_key(params[name]))
            for name in _TEXT_PARAMETERS
            if name in params
        )
        if key not in self.heads:
            check_text_head(estimator.text_head, self.X.shape[1])
            self.heads[key] = _share_head(estimator, self.classes)
        estimator._shared_head = self.heads[key]
        estimator.text_head_ = estimator._shared_head(self.classes)
        return estimator

    def evaluate(self, settings, distance):
        """Score every setting on every fold, and choose.

        Parameters
        ----------
        settings : list of dict
        distance : ndarray of shape (n_settings,)
            From the setting that needs no evidence.
        """
        shape = len(settings), len(self.folds)
        self.scores = np.full(shape, np.nan)
        self.fit_time, self.score_time = np.zeros(shape), np.zeros(shape)
        self.log_losses = np.full(len(settings), np.nan)
        self.failures = {}
        self.best_index, self.best_temperature = None, None
        self._losses = None
        # What was found for the settings so far.
        self._ratios, self._sharpness = {}, _TYPICAL_SHARPNESS
        if not self.folds:
            return
        groups = {}
        for index, setting in enumerate(settings):
            fixed = {k: v for k, v in setting.items() if k not in self.blend_names}
            key = tuple((name, value_key(fixed[name])) for name in sorted(fixed))
            groups.setdefault(key, (fixed, []))[1].append(index)
        for fixed, rows in groups.values():
            blends = [
                {k: v for k, v in settings[row].items() if k in self.blend_names}
                for row in rows
            ]
            last = self._evaluate_group(fixed, np.array(rows), blends)
        self._choose(distance)
        if self.best_index is not None:
            self._fit_temperature(settings[self.best_index], fixed, last)

    def _evaluate_group(self, fixed, rows, blends):
        """Score settings that differ in blend parameters: one fit a fold."""
        held_out = []
        fits = self._fits(fixed, blends)
        for fold in range(len(self.folds)):
            started = time.perf_counter()
            try:
                held_out.append(next(fits))
            except ValueError as error:
                self._fail(rows, error)
                return None
            self.fit_time[rows, fold] = time.perf_counter() - started
        started = time.perf_counter()
        possible = []
        for position, (row, blend) in enumerate(zip(rows, blends, strict=True)):
            try:
                held_out[0].fitted._reblend(blend)
                possible.append(position)
            except ValueError as error:
                self._fail([row], error)
        group = rows[possible], [blends[position] for position in possible]
        if not self.judge.by_log_loss:
            for fold, held in enumerate(held_out):
                self._score(fold, held, *group)
            group = self._leading(*group)
        self._measure(held_out, *group)
        self.score_time[rows] = (time.perf_counter() - started) / self.scores[rows].size
        return held_out

    def _fits(self, fixed, blends):
        """Fit on one fold after another, with blend parameters that can be fitted."""
        fitter, (fitted, components) = self._first_fit(fixed, blends)
        for number, (train, test) in enumerate(self.folds):
            if number:
                fitted, components = fitter(train, test)
            columns = np.searchsorted(fitted.classes_, self.y[test])
            columns[columns == len(fitted.classes_)] = 0
            columns[fitted.classes_[columns] != self.y[test]] = -1
            yield _HeldOut(fitted, components, columns, self.weight[test])

    def _first_fit(self, fixed, blends):
        failure = None
        for blend in [{}, *blends]:
            try:
                estimator = self.with_texts(fixed | blend)
                fitter = estimator._fold_fitter(
                    self.X, self.y, self.weight, blends, self.kept
                )
                return fitter, fitter(*self.folds[0])
            except ValueError as error:
                if str(error) == str(failure):
                    break
                failure = error
        raise failure

    def _fail(self, rows, error):
        self.scores[rows] = np.nan
        for row in rows:
            self.failures.setdefault(int(row), error)

    def _score(self, fold, held_out, rows, blends):
        """Score settings on one fold, at the temperatures that they have."""
        variants = [held_out.fitted._reblend(blend) for blend in blends]
        if not self.judge.stacked:
            self._ask_scorer(fold, held_out, rows, variants)
            return
        for block in _batches(len(rows), _BLOCK_SETTINGS):
            temperatures = np.array([v.temperature_ for v in variants[block]])
            blend = held_out.fitted._blender(variants[block])
            try:
                values = [
                    self.judge.score(stack, columns)
                    for stack, columns, _ in held_out.stacks(blend, temperatures)
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
            _remember(variant, X, held_out.components)
            try:
                self.scores[row, fold] = self.judge.score(variant, X, y, **kwargs)
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
        step = _sample_step(sum(map(len, known)))
        sample = [held.take(k[::step]) for held, k in zip(held_out, known, strict=True)]
        self._loss_weight = np.concatenate(
            [held.weight[k] for held, k in zip(held_out, known, strict=True)]
        )
        prior = _PRIOR_SHOTS
        if len(self._loss_weight):
            prior *= sum(h.weight.sum() for h in sample) / self._loss_weight.sum()
        if self._losses is None:
            shape = len(self.scores), len(self._loss_weight)
            self._losses = np.full(shape, np.nan, dtype=self.X.dtype)
        variants = [
            [held.fitted._reblend(blend) for blend in blends] for held in held_out
        ]
        for block in _batches(len(rows), _BLOCK_SETTINGS):
            blenders = [
                held.fitted._blender(own[block])
                for held, own in zip(held_out, variants, strict=True)
            ]
            ones = np.ones(len(variants[0][block]))
            blended = [
                part
                for held, blend in zip(sample, blenders, strict=True)
                for part in held.stacks(blend, ones)
            ]
            defaults = np.array([v._default_temperature for v in variants[-1][block]])
            place = len(rows), block.start
            ratios = self._find_ratios(place, blended, defaults, prior)
            losses = []
            for fold, held in enumerate(held_out):
                blocks = held.stacks(blenders[fold], ratios * defaults)
                found = [score_shots(stack, columns) for stack, columns, _ in blocks]
                right, lost = zip(*found, strict=True)
                losses.append(np.concatenate(lost, axis=1)[:, known[fold]])
                if self.judge.by_log_loss:
                    self._average(fold, held, rows[block], right)
            self._losses[rows[block]] = np.concatenate(losses, axis=1)

    def _find_ratios(self, place, blended, defaults, prior):
        """Best temperatures of some settings over their default ones.

        The settings at the same place of another group are mostly the same after
        another fit, and start from what was found there. Without such, settings
        start as sharp as those before them ended.
        """
        if place in self._ratios:
            ratios = _best_ratios(blended, defaults, self._ratios[place], prior)
        else:
            spreads = defaults * _spreads(blended, len(defaults))
            spreads = np.where(spreads > 0, spreads, self._sharpness)
            start = self._sharpness / spreads
            ratios = _best_ratios(blended, defaults, start, prior)
            self._sharpness = np.median(ratios * spreads)
        self._ratios[place] = ratios
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

    def _fit_temperature(self, setting, last_fixed, last):
        """Fit the chosen setting's temperature on its held-out scores."""
        fixed = {k: v for k, v in setting.items() if k not in self.blend_names}
        blend = {k: v for k, v in setting.items() if k in self.blend_names}
        again = last is None or any(last_fixed[k] is not fixed[k] for k in fixed)
        folds = []
        for held in self._fits(fixed, [blend]) if again else last:
            variant = held.fitted._reblend(blend)
            scores = variant._blend(held.components)
            folds.append((scores, held.columns, held.weight))
        self.best_temperature = fit_temperature(folds, variant._default_temperature)


STACK_SCORES = {
    None: hits,
    "accuracy": hits,
    "neg_log_loss": log_likelihoods,
}
