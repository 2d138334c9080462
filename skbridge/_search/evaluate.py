"""Held-out scores of many settings of one few-shot classifier, and the choice of one.

Settings that differ in blend parameters alone form a group, which one fit per fold
serves.
"""

import time
from dataclasses import dataclass

import numpy as np

from skbridge._held_out.selection import value_key, within_one_standard_error
from skbridge._held_out.temperature import (
    PRIOR_SHOTS,
    best_ratios,
    fit_temperature,
    mean_spreads,
    sample_step,
    score_shots,
)
from skbridge._rows import batches
from skbridge._search.fits import FoldFits, stack_variants
from skbridge._search.scoring import Judge, ScoredShots

# Number of settings that are blended at once.
_BLOCK_SETTINGS = 16
# First guess of a temperature, in units of 1 / standard deviation of a shot's scores.
_TYPICAL_SHARPNESS = 3.0
# Rounding error of mean scores.
_SCORE_TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class _Group:
    """Settings that differ in blend parameters alone.

    Attributes
    ----------
    fixed : dict
        Their other parameters.
    rows : ndarray of shape (n_settings,)
        Indices of the settings.
    blends : list of dict
        Blend parameters of each.
    """

    fixed: dict
    rows: np.ndarray
    blends: list

    def take(self, positions):
        """Select some of the settings."""
        blends = [self.blends[position] for position in positions]
        return _Group(self.fixed, self.rows[positions], blends)


class _Temperatures:
    """Best temperatures of blocks of settings, each found from a good start.

    Settings at the same position of another group are mostly the same blends of another
    fit, and start from the temperatures found there. The first group has no such
    start: its settings start as sharp as the settings before them ended.
    """

    def __init__(self):
        self._ratios, self._sharpness = {}, _TYPICAL_SHARPNESS

    def ratios(self, position, blended, defaults, prior):
        """Best temperatures over the default ones.

        Parameters
        ----------
        position : tuple of int
            Size of the group, and start of the block in it.
        blended : list of (stack, columns, weight)
            Held-out scores.
        defaults : ndarray of shape (n_settings,)
            Default temperatures.
        prior : float
            Weight of the defaults, in shots.

        Returns
        -------
        ndarray of shape (n_settings,)
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


class Evaluation:
    """Fits, held-out scores and the choice of one setting.

    Parameters
    ----------
    fits : FoldFits
    judge : Judge
    settings : list of dict

    Attributes
    ----------
    folds : list of (train, test)
    scores, fit_time, score_time : ndarray of shape (n_settings, n_folds)
        As in `cv_results_`; scores are NaN for settings that failed.
    failures : dict
        First error of each setting that failed, by its index.
    log_losses : ndarray of shape (n_settings,)
        Mean held-out log loss of each setting at its best temperature; NaN where it
        is not needed.
    best_index : int or None
        The chosen setting; None if all failed.
    best_temperature : float or None
        Its temperature.
    """

    def __init__(self, fits: FoldFits, judge: Judge, settings):
        self.fits, self.folds, self.judge = fits, fits.folds, judge
        self.settings = settings
        shape = len(settings), len(self.folds)
        self.scores = np.full(shape, np.nan)
        self.fit_time, self.score_time = np.zeros(shape), np.zeros(shape)
        self.log_losses = np.full(len(settings), np.nan)
        self.failures = {}
        self.best_index, self.best_temperature = None, None
        # Log loss counts shots whose class is in the training part.
        y, weight = fits.y, fits.weight
        self._known = [
            np.flatnonzero(np.isin(y[test], y[train])) for train, test in self.folds
        ]
        weights = [
            weight[test][known]
            for (_, test), known in zip(self.folds, self._known, strict=True)
        ]
        self._loss_weight = np.concatenate([np.empty(0), *weights])
        shape = len(settings), len(self._loss_weight)
        self._losses = np.full(shape, np.nan, dtype=fits.X.dtype)
        # A sample of these shots finds the temperatures, with a prior to match.
        step = sample_step(len(self._loss_weight))
        self._sample = [known[::step] for known in self._known]
        self._prior = PRIOR_SHOTS
        if len(self._loss_weight):
            sampled = sum(
                weight[test][rows].sum()
                for (_, test), rows in zip(self.folds, self._sample, strict=True)
            )
            self._prior *= sampled / self._loss_weight.sum()
        self._temperatures = _Temperatures()

    def run(self, distance):
        """Score every setting on every fold, and choose.

        Parameters
        ----------
        distance : ndarray of shape (n_settings,)
            Distance of each setting from the one that needs no evidence.
        """
        if not self.folds:
            return
        groups = self._make_groups()
        last, last_held_out = None, None
        for group in groups:
            held_out = self._fit(group)
            if held_out is not None:
                self._evaluate(group, held_out)
                last, last_held_out = group, held_out
        self.best_index = self._choose(distance)
        if self.best_index is None:
            return
        best = next(group for group in groups if self.best_index in group.rows)
        (position,) = np.flatnonzero(best.rows == self.best_index)
        blend = best.blends[position]
        # The last group's fits are still at hand.
        is_last = best is last
        held_out = last_held_out if is_last else self.fits.held_out(best.fixed, [blend])
        self.best_temperature = _temperature(held_out, blend)

    def _make_groups(self):
        blend_names = {*self.fits.texts.estimator.blend_parameters, "temperature"}
        groups = {}
        for row, setting in enumerate(self.settings):
            fixed = {k: v for k, v in setting.items() if k not in blend_names}
            blend = {k: v for k, v in setting.items() if k in blend_names}
            key = tuple((name, value_key(fixed[name])) for name in sorted(fixed))
            _, rows, blends = groups.setdefault(key, (fixed, [], []))
            rows.append(row)
            blends.append(blend)
        return [
            _Group(fixed, np.array(rows), blends)
            for fixed, rows, blends in groups.values()
        ]

    def _fit(self, group):
        """Fit on every fold; None if that fails."""
        held_out, fits = [], self.fits.held_out(group.fixed, group.blends)
        for fold in range(len(self.folds)):
            started = time.perf_counter()
            try:
                held_out.append(next(fits))
            except ValueError as error:
                self._fail(group.rows, error)
                return None
            self.fit_time[group.rows, fold] = time.perf_counter() - started
        return held_out

    def _evaluate(self, group, held_out):
        """Score settings from the fits that they share."""
        started = time.perf_counter()
        possible = []
        for position, (row, blend) in enumerate(
            zip(group.rows, group.blends, strict=True)
        ):
            try:
                held_out[0].fitted.reblend(**blend)
                possible.append(position)
            except ValueError as error:
                self._fail([row], error)
        measured = group.take(possible)
        if not self.judge.by_log_loss:
            for fold, shots in enumerate(held_out):
                self._score(fold, shots, measured)
            measured = self._leading(measured)
        self._measure(held_out, measured)
        elapsed = time.perf_counter() - started
        self.score_time[group.rows] = elapsed / self.scores[group.rows].size

    def _fail(self, rows, error):
        self.scores[rows] = np.nan
        for row in rows:
            self.failures.setdefault(int(row), error)

    def _score(self, fold, shots, group):
        """Score settings on one fold, at their own temperatures."""
        variants = shots.variants(group.blends)
        if not self.judge.stacked:
            self._call_scorer(fold, shots, group.rows, variants)
            return
        for block in batches(len(group.rows), _BLOCK_SETTINGS):
            temperatures = np.array([v.temperature_ for v in variants[block]])
            stacked = stack_variants(variants[block])
            try:
                values = [
                    self.judge.score(stack, columns)
                    for stack, columns, _ in shots.stacks(stacked, temperatures)
                ]
            except ValueError as error:
                self._fail(group.rows[block], error)
            else:
                self._average(fold, shots, group.rows[block], values)

    def _average(self, fold, shots, rows, values):
        """Report the weighted mean over the shots of a fold, of values in blocks."""
        self.scores[rows, fold] = np.average(
            np.concatenate(values, axis=1), axis=1, weights=shots.weight
        )

    def _call_scorer(self, fold, shots, rows, variants):
        """Score settings one by one, with a scorer that may call any method."""
        _, test = self.folds[fold]
        X, y, weight = self.fits.X[test], self.fits.y[test], self.judge.weight
        kwargs = {} if weight is None else {"sample_weight": weight[test]}
        for row, variant in zip(rows, variants, strict=True):
            scores = variant.blend_.scores(shots.components)
            scored = ScoredShots(variant, X, scores)
            try:
                self.scores[row, fold] = self.judge.score(scored, X, y, **kwargs)
            except ValueError as error:
                self._fail([row], error)

    def _leading(self, group):
        """Select the settings of a group that are as good as the best so far."""
        means = self.scores.mean(axis=1)
        if np.isnan(means).all():
            return group.take([])
        leads = means[group.rows] >= np.nanmax(means) - _SCORE_TOLERANCE
        return group.take(np.flatnonzero(leads))

    def _measure(self, held_out, group):
        """Log losses of settings and, where these decide, the scores to report."""
        samples = [
            shots.take(rows) for shots, rows in zip(held_out, self._sample, strict=True)
        ]
        variants = [shots.variants(group.blends) for shots in held_out]
        for block in batches(len(group.rows), _BLOCK_SETTINGS):
            stacked = [stack_variants(own[block]) for own in variants]
            # Folds are alike in size, and so in default temperature: the last one's.
            defaults = np.array(
                [v.blend_.default_temperature for v in variants[-1][block]]
            )
            ones = np.ones(len(defaults))
            blended = [
                scored
                for sample, blends in zip(samples, stacked, strict=True)
                for scored in sample.stacks(blends, ones)
            ]
            position = len(group.rows), block.start
            ratios = self._temperatures.ratios(position, blended, defaults, self._prior)
            self._set_losses(held_out, group.rows[block], stacked, ratios * defaults)

    def _set_losses(self, held_out, rows, stacked, temperatures):
        """Set the log loss of each shot under some settings."""
        losses = []
        for fold, shots in enumerate(held_out):
            stacks = shots.stacks(stacked[fold], temperatures)
            found = [score_shots(stack, columns) for stack, columns, _ in stacks]
            right, lost = zip(*found, strict=True)
            losses.append(np.concatenate(lost, axis=1)[:, self._known[fold]])
            if self.judge.by_log_loss:
                self._average(fold, shots, rows, right)
        self._losses[rows] = np.concatenate(losses, axis=1)

    def _choose(self, distance):
        """Index of the best setting; None if all failed."""
        means = self.scores.mean(axis=1)
        if np.isnan(means).all():
            return None
        if not self._losses.size:
            return int(np.nanargmax(means))
        weight = self._loss_weight
        self.log_losses = self._losses @ weight / weight.sum()
        if self.judge.by_log_loss:
            return within_one_standard_error(self._losses, weight, distance)
        ties = np.flatnonzero(means >= np.nanmax(means) - _SCORE_TOLERANCE)
        return int(ties[np.argmin(self.log_losses[ties])])


def _temperature(held_out, blend):
    """Temperature of least log loss of one setting's held-out scores."""
    folds, default = [], None
    for shots in held_out:
        fold_blend = shots.fitted.reblend(**blend).blend_
        scores = fold_blend.scores(shots.components)
        folds.append((scores, shots.columns, shots.weight))
        # That of the last fold is used, as in `Evaluation._measure`.
        default = fold_blend.default_temperature
    return fit_temperature(folds, default)
