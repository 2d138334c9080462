"""Results of a search in the form of GridSearchCV, and reports about them."""

import warnings

import numpy as np
from scipy.stats import rankdata
from sklearn.exceptions import FitFailedWarning

from skbridge._messages import brief


def format_results(settings, evaluation):
    """Arrange an evaluation as ``cv_results_``.

    Parameters
    ----------
    settings : list of dict
    evaluation : Evaluation
        After its ``run``.

    Returns
    -------
    dict of ndarrays
    """
    results = {}
    n_folds = len(evaluation.folds)
    means = stds = np.full(len(settings), np.nan)
    if n_folds:
        for name in ("fit_time", "score_time"):
            results[f"mean_{name}"] = getattr(evaluation, name).mean(axis=1)
            results[f"std_{name}"] = getattr(evaluation, name).std(axis=1)
        means, stds = evaluation.scores.mean(axis=1), evaluation.scores.std(axis=1)
    for name in sorted({name for setting in settings for name in setting}):
        column = np.ma.masked_all(len(settings), dtype=object)
        for row, setting in enumerate(settings):
            if name in setting:
                column[row] = setting[name]
        results[f"param_{name}"] = column
    results["params"] = settings
    for fold in range(n_folds):
        results[f"split{fold}_test_score"] = evaluation.scores[:, fold]
    results["mean_test_score"] = means
    results["std_test_score"] = stds
    if not np.isnan(evaluation.log_losses).all():
        results["log_loss"] = evaluation.log_losses
    # Settings that failed rank last.
    ranks = rankdata(np.where(np.isnan(means), np.inf, -means), method="min")
    results["rank_test_score"] = ranks.astype(np.int32)
    return results


def report_failures(evaluation):
    """Warn of settings that failed; raise if no setting has a score.

    Parameters
    ----------
    evaluation : Evaluation
        After its ``run``, with folds.

    Raises
    ------
    ValueError
        If every setting failed or scored NaN.

    Warns
    -----
    FitFailedWarning
        If some settings failed.
    """
    if not evaluation.failures and evaluation.best_index is not None:
        return
    if evaluation.best_index is None:
        if not evaluation.failures:
            raise ValueError(
                "Every setting scored NaN. With scoring='neg_log_loss' each class "
                "needs a shot in the training part of every split: use cv=None, or "
                "scoring='accuracy'."
            )
        first = next(iter(evaluation.failures.values()))
        raise ValueError(f"Every setting failed, the first with: {first}") from first
    row, error = next(iter(evaluation.failures.items()))
    warnings.warn(
        f"{len(evaluation.failures)} of {len(evaluation.scores)} settings failed and "
        f"have NaN scores, the first at index {row} of cv_results_: {error}",
        FitFailedWarning,
        stacklevel=5,
    )


def explain_fallback(n_images, folds, best_params):
    """Say how classes with a single shot were treated.

    Parameters
    ----------
    n_images : ndarray of shape (n_classes,)
        Number of images of each class.
    folds : list of (train, test)
    best_params : dict
        The chosen setting.

    Returns
    -------
    str or None
        None if there are no such classes.

    Warns
    -----
    UserWarning
        If no shot could be held out.
    """
    single = int(np.count_nonzero(n_images == 1))
    if not folds:
        message = (
            "No shot could be held out: every class has a single shot (or views of a "
            f"single image). {brief(best_params)}, the setting nearest to the one that "
            "suits one shot per class, was chosen without a score, with the default "
            "temperature. Give some classes two shots to search."
        )
        warnings.warn(message, UserWarning, stacklevel=5)
        return message
    if single:
        return (
            f"{single} of {len(n_images)} classes have a single shot (or views of "
            "a single image), which stayed in training in every fold: settings "
            "were scored on the shots of the other classes."
        )
    return None
