"""FewShotSearchCV: choose blending, cut and temperature from the shots alone."""

import time
import warnings
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from inspect import signature
from numbers import Integral

import numpy as np
from scipy.stats import rankdata
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    _fit_context,
    clone,
)
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.model_selection import ParameterGrid, ParameterSampler, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skbridge._classifiers.base import FewShotClassifier
from skbridge._classifiers.gda import BridgedGDAClassifier
from skbridge._held_out.folds import images_a_class, shot_folds
from skbridge._held_out.selection import distance_from, value_key
from skbridge._messages import shown
from skbridge._search.evaluate import STACK_SCORES, Evaluation, Judge, Texts
from skbridge._validation import (
    all_or_nothing,
    check_classes,
    check_shots,
    missing_rows,
)

_N_DRAWS = 200


def _settings(space, n_settings, random_state):
    """List the settings of a grid, or draw some where that is asked for."""
    spaces = [space] if isinstance(space, Mapping) else list(space)
    drawn = any(hasattr(v, "rvs") for one in spaces for v in one.values())
    if not drawn:
        grid = ParameterGrid(spaces)
        if n_settings is None or n_settings >= len(grid):
            return list(grid)
    n_draws = _N_DRAWS if n_settings is None else n_settings
    return list(ParameterSampler(spaces, n_draws, random_state=random_state))


def _check_space(space, estimator):
    """Refuse what is no space, and names that the estimator does not have."""
    spaces = [space] if isinstance(space, Mapping) else space
    is_list = isinstance(spaces, Iterable) and not isinstance(spaces, str)
    spaces = list(spaces) if is_list else []
    if not spaces or not all(isinstance(one, Mapping) for one in spaces):
        raise TypeError(
            "param_space must be a dict from parameter names to lists or "
            f"distributions, a list of such dicts, or None; got {space!r}."
        )
    known = estimator.get_params()
    for name in {name: None for one in spaces for name in one}:
        if name not in known:
            near = get_close_matches(str(name), known, n=3, cutoff=0.4)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ValueError(
                f"param_space has {name!r}, which is no parameter of "
                f"{type(estimator).__name__}.{hint} Its parameters are "
                f"{', '.join(sorted(known))}."
            )


def _check_values(settings, estimator):
    """Validate every value once, before anything is fitted."""
    constraints = estimator._parameter_constraints
    checked = set()
    for setting in settings:
        for name, value in setting.items():
            if (name, value_key(value)) not in checked:
                checked.add((name, value_key(value)))
                if "__" in name:  # A parameter of the texts, which check their own.
                    continue
                validate_parameter_constraints(
                    {name: constraints[name]},
                    {name: value},
                    caller_name=type(estimator).__name__,
                )


def _refitted_has(name):
    def check(search):
        if not search.refit:
            raise AttributeError(
                f"{name} needs a refitted estimator, and refit=False keeps none. Set "
                "refit=True, or fit an estimator with best_params_."
            )
        fitted = getattr(search, "best_estimator_", None)
        getattr(search._get_estimator() if fitted is None else fitted, name)
        return True

    return available_if(check)


def _accepts_weight(scorer):
    judge = getattr(scorer, "_score_func", scorer)
    return "sample_weight" in signature(judge).parameters


def _format_results(settings, run):
    """Arrange what a search found as GridSearchCV does."""
    results = {}
    n_folds = len(run.folds)
    means = stds = np.full(len(settings), np.nan)
    if n_folds:
        for name in ("fit_time", "score_time"):
            results[f"mean_{name}"] = getattr(run, name).mean(axis=1)
            results[f"std_{name}"] = getattr(run, name).std(axis=1)
        means, stds = run.scores.mean(axis=1), run.scores.std(axis=1)
    for name in sorted({name for setting in settings for name in setting}):
        column = np.ma.masked_all(len(settings), dtype=object)
        for row, setting in enumerate(settings):
            if name in setting:
                column[row] = setting[name]
        results[f"param_{name}"] = column
    results["params"] = settings
    for fold in range(n_folds):
        results[f"split{fold}_test_score"] = run.scores[:, fold]
    results["mean_test_score"] = means
    results["std_test_score"] = stds
    if not np.isnan(run.log_losses).all():
        results["log_loss"] = run.log_losses
    # What failed comes last.
    ranks = rankdata(np.where(np.isnan(means), np.inf, -means), method="min")
    results["rank_test_score"] = ranks.astype(np.int32)
    return results


def _report_failures(run):
    if not run.failures and run.best_index is not None:
        return
    if run.best_index is None:
        if not run.failures:
            raise ValueError(
                "Every setting scored NaN. With scoring='neg_log_loss' each class "
                "needs a shot in the training part of every split: use cv=None, or "
                "scoring='accuracy'."
            )
        first = next(iter(run.failures.values()))
        raise ValueError(f"Every setting failed, the first with: {first}") from first
    row, error = next(iter(run.failures.items()))
    warnings.warn(
        f"{len(run.failures)} of {len(run.scores)} settings failed and have NaN "
        f"scores, the first at index {row} of cv_results_: {error}",
        FitFailedWarning,
        stacklevel=3,
    )


class FewShotSearchCV(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Choose the parameters of a few-shot classifier from its shots alone.

    What RidgeCV is to Ridge: the settings are cross-validated on the shots, with
    one fit for all the settings that differ in blending only, the best one is
    fitted on all shots, and its softmax temperature is that of least log loss on
    held-out shots.

    Parameters
    ----------
    estimator : few-shot classifier, default=None
        A :class:`SeMoBridgeClassifier` or one of :mod:`skbridge.baselines`. None
        means ``SeMoBridgeClassifier()``.
    param_space : dict or list of dicts, default=None
        Lists of values, or distributions with an ``rvs`` method, by parameter
        name. None takes the space that the estimator declares for the number of
        shots.
    n_settings : int, default=None
        How many settings to try at most. None tries all of a space of lists, and
        draws 200 where the space has distributions.
    cv : int, splitter or iterable, default=None
        How to hold out shots. None makes stratified folds: as many as the median
        number of shots a class, from 2 to 8. An int makes that many folds; a
        splitter or an iterable of index pairs is taken as it is.
    scoring : str or callable, default=None
        What to maximise, as in :class:`~sklearn.model_selection.GridSearchCV`;
        among settings of equal score, the one of least held-out log loss is
        taken. None reports the accuracy but chooses by log loss, with the rule
        of one standard error, see Notes.
    refit : bool, default=True
        Whether to fit the best setting on all shots, for predictions.
    random_state : int, RandomState instance or None, default=None
        Draws settings, and shuffles the shots of each class before ``cv=None``
        divides them; None leaves them in order.

    Attributes
    ----------
    best_estimator_ : few-shot classifier
        Fitted on all shots. Its `temperature` is the one found here, unless the
        estimator has a temperature of its own or the space names it.
    best_params_ : dict
        The best setting.
    best_score_ : float
        Its mean held-out score; NaN where nothing could be held out.
    best_index_ : int
        Its place in `cv_results_`.
    cv_results_ : dict of ndarrays
        As of :class:`~sklearn.model_selection.GridSearchCV`; and ``log_loss``,
        the mean held-out log loss of each setting at its best temperature, NaN
        where it was not needed. A fit that serves many settings is timed for
        each of them.
    temperature_ : float or None
        The temperature of least log loss on held-out shots, with a prior at the
        estimator's default; None where nothing could be held out.
    fallback_ : str or None
        What was done about classes with a single shot; None without such.
    n_splits_ : int
        Number of folds; 0 where nothing could be held out.
    scorer_ : callable
        Scorer of `score`.
    refit_time_ : float
        Seconds that the last fit took.
    multimetric_ : bool
        Always False.
    classes_ : ndarray of shape (n_classes,)
        Labels seen in `fit`, sorted.
    n_features_in_ : int
        Width of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the embedding's columns, where `fit` saw string names.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : The same scores, one fit each.
    augment_shots : Views of the shots, with the groups that keep them together.

    Notes
    -----
    In a pipeline put the search last, ``make_pipeline(CLIPEmbedder(),
    FewShotSearchCV(...))``: then the images are embedded once. Texts are encoded
    once as well, whatever the number of settings and folds.

    Few shots measure accuracy too coarsely to choose by. With ``scoring=None``
    each setting is judged by its log loss on the held-out shots at its own best
    temperature, and of the settings whose loss is within one standard error of
    the least the one nearest to the estimator's own values, or to those that it
    declares for the number of shots, is taken.

    Scores are those of GridSearchCV on the same folds. In closed form a fold's
    class means come from the class sums of all shots less the held-out ones, so
    scores may differ by rounding.

    With ``cv=None`` a class with a single shot (or views of a single image, by
    `groups`) keeps it in training in every fold: it competes for the others'
    shots, but is not judged by its own. Where every class is like that nothing
    can be held out. Then the setting that the estimator declares for one shot a
    class is taken, or the one of `param_space` nearest to it, with the default
    temperature, and a warning says so: texts and the prior decide, never the
    accuracy on the shots that were learned.

    The temperature t minimises the log loss of the best setting's held-out
    scores plus ``5 (t / t_0 - log(t / t_0))``, t_0 being the default: a prior as
    strong as about five shots, without which t would grow without bound where
    all held-out shots are right.

    Sample weights count in the fits, in the held-out scores and in the
    temperature.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge import FewShotSearchCV, SeMoBridgeClassifier, TextHead
    >>> rng = np.random.default_rng(0)
    >>> images, texts = rng.normal(size=(2, 3, 16))
    >>> y = np.repeat([0, 1, 2], 4)
    >>> X = (images + texts)[y] + rng.normal(size=(12, 16))
    >>> head = TextHead.from_features([0, 1, 2], texts)
    >>> classifier = SeMoBridgeClassifier(head, bridge="identity")
    >>> search = FewShotSearchCV(classifier, {"lambda_3": [0.0, 0.1, 1.0]}).fit(X, y)
    >>> search.best_params_, search.n_splits_
    ({'lambda_3': 1.0}, 4)
    """

    _parameter_constraints = {
        "estimator": "no_validation",
        "param_space": "no_validation",
        "n_settings": [Interval(Integral, 1, None, closed="left"), None],
        "cv": ["cv_object"],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "refit": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator=None,
        param_space=None,
        *,
        n_settings=None,
        cv=None,
        scoring=None,
        refit=True,
        random_state=None,
    ):
        self.estimator = estimator
        self.param_space = param_space
        self.n_settings = n_settings
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing
    def fit(self, X, y, sample_weight=None, groups=None):
        """Search the settings, and fit the best one on all shots.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings, not normalised.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each shot.
        groups : array-like of shape (n_samples,), default=None
            Image that each row is a view of; views of one image are never
            divided between training and held-out shots.

        Returns
        -------
        FewShotSearchCV
            The fitted search.

        Raises
        ------
        TypeError
            If the estimator is no few-shot classifier of this library, or
            param_space no space.
        ValueError
            If param_space has a name that the estimator does not, `cv` is an int
            above the number of shots of some class, every setting fails, or the
            data are such that the estimator's `fit` raises.
        """
        estimator = clone(self._check_estimator())
        if self.param_space is not None:
            _check_space(self.param_space, estimator)
        shots = check_shots(self, X, y, sample_weight)
        self.classes_, codes = np.unique(shots[1], return_inverse=True)
        check_classes(self, self.classes_)
        kept = np.arange(len(codes))
        if sample_weight is not None:
            kept = np.flatnonzero(np.asarray(sample_weight) > 0)
        images = np.arange(len(codes))
        if groups is not None:
            check_consistent_length(X, groups)
            missing = missing_rows(groups)
            if len(missing):
                raise ValueError(
                    f"{len(missing)} of {len(groups)} groups are missing (None, NaN or "
                    f"pd.NA), in the rows {shown(missing.tolist())}. Rows of one group "
                    "are views of one image: give each image a group of its own."
                )
            _, images = np.unique(column_or_1d(groups)[kept], return_inverse=True)
        n_images = images_a_class(codes, images)
        folds = self._make_folds(X, y, groups, codes, images, kept)
        self.n_splits_ = len(folds)
        self.scorer_ = check_scoring(estimator, self.scoring)
        self.multimetric_ = False
        judge = self._make_judge(None if sample_weight is None else shots[2])

        texts = Texts(estimator, self.classes_, shots[0].shape[1])
        n_shots = float(np.median(n_images))
        if self.param_space is None:
            head = texts.estimator_with({}).texts
            prior = estimator.search_prior(n_shots, head)
            space = {name: [value] for name, value in prior.items()}
            if folds:
                space = estimator.search_space(n_shots, head)
            settings = _settings(space, self.n_settings, self.random_state)
        else:
            settings = _settings(self.param_space, self.n_settings, self.random_state)
            first = texts.estimator_with(settings[0])
            prior = first.search_prior(n_shots, first.texts)
        _check_values(settings, estimator)
        distance = distance_from(settings, estimator.get_params() | prior)
        run = Evaluation(texts, *shots, folds, judge, settings)
        with warnings.catch_warnings():
            # What they say of the shots and texts, the last fit says again.
            warnings.simplefilter("ignore", UserWarning)
            run.run(distance)
        self.cv_results_ = _format_results(settings, run)
        self.temperature_ = run.best_temperature
        self.best_index_ = run.best_index
        if folds:
            _report_failures(run)
        else:
            self.best_index_ = int(distance.argmin())
        self.best_params_ = settings[self.best_index_]
        self.best_score_ = self.cv_results_["mean_test_score"][self.best_index_]
        self.fallback_ = self._explain_fallback(n_images)
        if self.refit:
            self._refit(X, y, sample_weight)
        return self

    def _check_estimator(self):
        estimator = self._get_estimator()
        if isinstance(estimator, Pipeline):
            raise TypeError(
                "estimator is a Pipeline, but FewShotSearchCV searches a few-shot "
                "classifier itself. Put the search last in the pipeline instead, "
                "where it also saves embedding the images again: "
                "make_pipeline(CLIPEmbedder(), FewShotSearchCV("
                "SeMoBridgeClassifier()))."
            )
        if not isinstance(estimator, FewShotClassifier):
            raise TypeError(
                "estimator must be a few-shot classifier of skbridge, such as "
                f"SeMoBridgeClassifier(), or None; got {estimator!r}. For other "
                "estimators use sklearn.model_selection.GridSearchCV."
            )
        return estimator

    def _get_estimator(self):
        return BridgedGDAClassifier() if self.estimator is None else self.estimator

    def _make_folds(self, X, y, groups, codes, images, kept):
        """Index pairs into the shots that are `kept`."""
        if self.cv is None:
            return shot_folds(codes, images, random_state=self.random_state)
        if isinstance(self.cv, Integral):
            n_images = images_a_class(codes, images)
            fewest = int(n_images.argmin())
            if self.cv > n_images[fewest]:
                what = "shots" if groups is None else "images (groups)"
                raise ValueError(
                    f"cv={self.cv} needs at least {self.cv} {what} of every class, "
                    f"but {self.classes_.tolist()[fewest]!r} has {n_images[fewest]}. "
                    "Use cv=None: it makes as many folds as the shots allow, keeps the "
                    "shots of classes with a single one in training, and, where "
                    "every class has a single one, takes the setting that suits one "
                    "shot a class instead of searching."
                )
            return shot_folds(codes, images, n_splits=int(self.cv))
        place = np.full(len(y), -1)
        place[kept] = np.arange(len(kept))
        folds = []
        splits = check_cv(self.cv, y, classifier=True).split(X, y, groups)
        for number, (train, test) in enumerate(splits):
            train, test = (rows[rows >= 0] for rows in (place[train], place[test]))
            if not len(test):
                raise ValueError(
                    f"Split {number} of cv holds out no shot of positive weight, so "
                    "it cannot score any setting. Leave it out of cv."
                )
            folds.append((train, test))
        if not folds:
            raise ValueError("cv has no splits. Use cv=None, or give at least one.")
        return folds

    def _make_judge(self, weight):
        by_name = self.scoring is None or isinstance(self.scoring, str)
        stacked = by_name and self.scoring in STACK_SCORES
        score = STACK_SCORES[self.scoring] if stacked else self.scorer_
        if weight is not None and not stacked and not _accepts_weight(score):
            warnings.warn(
                f"The scoring {self.scoring!r} takes no sample_weight: the weights "
                "count in fits and in the temperature, but not in the scores.",
                UserWarning,
                stacklevel=4,
            )
            weight = None
        return Judge(score, stacked, weight, by_log_loss=self.scoring is None)

    def _explain_fallback(self, n_images):
        single = int(np.count_nonzero(n_images == 1))
        if not self.n_splits_:
            message = (
                "No shot could be held out, since every class has a single one (or "
                "views of a single image): no setting was scored. Of the settings, "
                f"{self.best_params_} was taken as the one nearest to what suits one "
                "shot a class, with the default temperature. With two shots of some "
                "classes there is something to search with."
            )
            warnings.warn(message, UserWarning, stacklevel=4)
            return message
        if self.cv is None and single:
            return (
                f"{single} of {len(n_images)} classes have a single shot (or views of "
                "a single image), which stayed in training in every fold: settings "
                "were scored on the shots of the other classes."
            )
        return None

    def _refit(self, X, y, sample_weight):
        started = time.perf_counter()
        best = clone(self._check_estimator())
        best.set_params(**clone(self.best_params_, safe=False))
        if (
            self.temperature_ is not None
            and best.temperature is None
            and "temperature" not in self.best_params_
        ):
            best.set_params(temperature=self.temperature_)
        if sample_weight is None:
            best.fit(X, y)
        else:
            best.fit(X, y, sample_weight=sample_weight)
        self.best_estimator_ = best
        self.refit_time_ = time.perf_counter() - started

    def _best(self):
        check_is_fitted(self, "best_estimator_")
        return self.best_estimator_

    @_refitted_has("predict")
    def predict(self, X):
        """Most probable label of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels out of `classes_`.
        """
        return self._best().predict(X)

    @_refitted_has("predict_proba")
    def predict_proba(self, X):
        """Class probabilities, at the temperature found on held-out shots.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`.
        """
        return self._best().predict_proba(X)

    @_refitted_has("predict_log_proba")
    def predict_log_proba(self, X):
        """Logarithm of `predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        return self._best().predict_log_proba(X)

    @_refitted_has("decision_function")
    def decision_function(self, X):
        """Blended logits of the best estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
        """
        return self._best().decision_function(X)

    @_refitted_has("component_logits")
    def component_logits(self, X):
        """Cosines before blending, where the best estimator has them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings.

        Returns
        -------
        tuple of (ndarray of shape (n_samples, n_classes) or None)
        """
        return self._best().component_logits(X)

    @_refitted_has("predict")
    def score(self, X, y, sample_weight=None):
        """Score of the best estimator, by `scoring`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings.
        y : array-like of shape (n_samples,)
            True labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, where the scoring takes one.

        Returns
        -------
        float
        """
        kwargs = {} if sample_weight is None else {"sample_weight": sample_weight}
        best = self._best()
        return self.scorer_(best, X, y, **kwargs)
