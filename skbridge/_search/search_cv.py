"""FewShotSearchCV: choose blending, cut and temperature from the shots alone."""

import time
from numbers import Integral

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    _fit_context,
    clone,
)
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skbridge._classifiers.base import FewShotClassifier
from skbridge._classifiers.gda import BridgedGDAClassifier
from skbridge._held_out.folds import images_per_class, shot_folds
from skbridge._held_out.selection import distance_from
from skbridge._messages import brief, quiet
from skbridge._search.evaluate import Evaluation
from skbridge._search.fits import FoldFits, Texts
from skbridge._search.folds import number_images, numbered_folds, splitter_folds
from skbridge._search.results import (
    explain_fallback,
    format_results,
    report_failures,
)
from skbridge._search.scoring import make_judge
from skbridge._search.settings import check_space, check_values, list_settings
from skbridge._validation import all_or_nothing, check_classes, check_shots


def _refitted_has(name):
    def check(search):
        if not search.refit:
            raise AttributeError(
                f"{name} needs a refitted estimator, and with refit=False there is "
                "none. Set refit=True, or fit an estimator with best_params_."
            )
        fitted = getattr(search, "best_estimator_", None)
        getattr(search._get_estimator() if fitted is None else fitted, name)
        return True

    return available_if(check)


class FewShotSearchCV(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Choose the parameters of a few-shot classifier from its shots alone.

    It is the counterpart of RidgeCV for few-shot classifiers. The settings are
    cross-validated on the shots, with one fit for all settings that differ only in
    blend parameters. The best setting is fitted on all shots. If its `temperature` is
    None, it gets the softmax temperature of least log loss on held-out shots.

    Parameters
    ----------
    estimator : few-shot classifier, default=None
        A :class:`BridgedGDAClassifier`, a :class:`SeMoBridgeClassifier` or one of
        :mod:`skbridge.baselines`. None means ``BridgedGDAClassifier()``.
    param_space : dict or list of dicts, default=None
        Lists of values, or distributions with an ``rvs`` method, by parameter
        name. None means the space that the estimator declares for the number of
        shots.
    cv : int, splitter or iterable, default=None
        How to hold out shots. None makes stratified folds: as many as the median
        number of shots per class, from 2 to 8. An int makes that many folds; a
        splitter or an iterable of index pairs is used unchanged.
    scoring : str or callable, default=None
        Score to maximise, as in :class:`~sklearn.model_selection.GridSearchCV`;
        of settings with equal scores, the one with the least held-out log loss is
        chosen. None reports the accuracy but chooses by log loss, with the rule of one
        standard error, see Notes.

    n_settings : int, default=None
        Largest number of settings to try. None tries all settings of a space of lists,
        and draws 200 if the space contains distributions.
    refit : bool, default=True
        Whether to fit the best setting on all shots, for predictions.
    random_state : int, RandomState instance or None, default=None
        Generator that draws settings, and shuffles the shots of each class before
        ``cv=None`` divides them; None does not shuffle.

    Attributes
    ----------
    best_estimator_ : few-shot classifier
        Fitted on all shots. Its `temperature` is `temperature_`, unless the estimator
        sets another one or the space names it. :class:`BridgedGDAClassifier` estimates
        its own, and `temperature_` is only reported.
    best_params_ : dict
        The best setting.
    best_score_ : float
        Its mean held-out score; NaN if no shot could be held out.
    best_index_ : int
        Its index in `cv_results_`.
    cv_results_ : dict of ndarrays
        As in :class:`~sklearn.model_selection.GridSearchCV`, and ``log_loss``,
        the mean held-out log loss of each setting at its best temperature, NaN
        where it was not needed. The time of a fit that serves many settings is
        reported for each of them.
    temperature_ : float or None
        The temperature of least log loss on held-out shots, with a prior at the
        estimator's default; None if no shot could be held out.
    fallback_ : str or None
        How classes with a single shot were treated; None without such classes.
    n_splits_ : int
        Number of folds; 0 if no shot could be held out.
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
    sklearn.model_selection.GridSearchCV : The same scores, with one fit per setting.
    augment_shots : Views of the shots, with groups for `fit`.

    Notes
    -----
    In a pipeline, put the search last, ``make_pipeline(CLIPEmbedder(),
    FewShotSearchCV(...))``, so that the images are embedded once. Texts are encoded
    once as well, whatever the number of settings and folds.

    The accuracy on few shots is too coarse a criterion. With ``scoring=None``, each
    setting is judged by its log loss on the held-out shots, at its own best
    temperature. Of the settings whose loss exceeds the least by no more than one
    standard error of the difference, the one nearest to a prior is chosen: to the
    values that the estimator declares for the number of shots, or to its own values of
    other parameters.

    Scores are those of GridSearchCV on the same folds. In closed form, the class sums
    of a fold are those of all shots minus those of the held-out shots, so that scores
    may differ by rounding.

    With ``cv=None``, a class with a single shot (or views of a single image, by
    `groups`) is used for training in every fold: it competes for the shots of other
    classes, but is not scored itself. If every class has a single shot, none can be
    held out. Then the setting that the estimator declares for one shot per class is
    chosen, or the setting of `param_space` nearest to it, with the default
    temperature, and a warning says so. The accuracy on training shots is never used.

    The temperature t minimises the log loss of the held-out scores of the best setting
    plus ``5 (t / t_0 - log(t / t_0))``, where t_0 is the default. This prior is about
    as strong as five shots; without it, t would grow without bound if all held-out
    shots are classified correctly.

    Sample weights are used in the fits, in the held-out scores and in the
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
            Image that each row is a view of. Views of one image are never
            divided between training and held-out shots.

        Returns
        -------
        FewShotSearchCV
            The fitted search.

        Raises
        ------
        TypeError
            If the estimator is not a few-shot classifier of this library, or
            param_space is not a space.
        ValueError
            If param_space has a name that the estimator does not, `cv` is an int
            above the number of shots of some class, every setting fails, or the
            estimator's `fit` raises.
        """
        estimator = clone(self._check_estimator())
        if self.param_space is not None:
            check_space(self.param_space, estimator)
        shots, labels, weight = check_shots(self, X, y, sample_weight)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        check_classes(self, self.classes_)
        rows = np.arange(len(codes))
        if sample_weight is not None:
            rows = np.flatnonzero(np.asarray(sample_weight) > 0)
        images = number_images(groups, X, rows)
        n_images = images_per_class(codes, images)
        folds = self._make_folds(X, y, groups, codes, images, rows)
        self.n_splits_ = len(folds)
        self.scorer_ = check_scoring(estimator, self.scoring)
        self.multimetric_ = False
        judge = make_judge(
            self.scoring, self.scorer_, None if sample_weight is None else weight
        )
        texts = Texts(estimator, self.classes_, shots.shape[1])
        settings, prior = self._make_settings(
            texts, float(np.median(n_images)), bool(folds)
        )
        check_values(settings, estimator)
        distance = distance_from(settings, estimator.get_params() | prior)
        fits = FoldFits(texts, shots, labels, weight, folds)
        evaluation = Evaluation(fits, judge, settings)
        with quiet():  # The last fit repeats warnings about shots and texts.
            evaluation.run(distance)
        self.cv_results_ = format_results(settings, evaluation)
        self.temperature_ = evaluation.best_temperature
        self.best_index_ = evaluation.best_index
        if folds:
            report_failures(evaluation)
        else:
            self.best_index_ = int(distance.argmin())
        self.best_params_ = settings[self.best_index_]
        self.best_score_ = self.cv_results_["mean_test_score"][self.best_index_]
        self.fallback_ = None
        if self.cv is None or not folds:
            self.fallback_ = explain_fallback(n_images, folds, self.best_params_)
        if self.refit:
            self._refit(X, y, sample_weight)
        return self

    def _make_settings(self, texts, n_shots, has_folds):
        """List the settings, and give the prior from which distances are measured."""
        if self.param_space is not None:
            settings = list_settings(
                self.param_space, self.n_settings, self.random_state
            )
            first = texts.estimator_with(settings[0])
            return settings, first.search_prior(n_shots, first.texts)
        estimator = texts.estimator_with({})
        prior = estimator.search_prior(n_shots, estimator.texts)
        space = {name: [value] for name, value in prior.items()}
        if has_folds:
            space = estimator.search_space(n_shots, estimator.texts)
        return list_settings(space, self.n_settings, self.random_state), prior

    def _check_estimator(self):
        estimator = self._get_estimator()
        if isinstance(estimator, Pipeline):
            raise TypeError(
                "estimator is a Pipeline, but FewShotSearchCV searches the parameters "
                "of a few-shot classifier. Put the search last in the pipeline "
                "instead, so that the images are embedded once: "
                "make_pipeline(CLIPEmbedder(), FewShotSearchCV("
                "SeMoBridgeClassifier()))."
            )
        if not isinstance(estimator, FewShotClassifier):
            raise TypeError(
                "estimator must be a few-shot classifier of skbridge, such as "
                f"SeMoBridgeClassifier(), or None; got {brief(estimator)}. For other "
                "estimators use sklearn.model_selection.GridSearchCV."
            )
        return estimator

    def _get_estimator(self):
        return BridgedGDAClassifier() if self.estimator is None else self.estimator

    def _make_folds(self, X, y, groups, codes, images, rows):
        """Index pairs into the shots of positive weight, which are `rows` of X."""
        if self.cv is None:
            return shot_folds(codes, images, random_state=self.random_state)
        if isinstance(self.cv, Integral):
            unit = "shots" if groups is None else "images (groups)"
            return numbered_folds(self.cv, codes, images, self.classes_, unit)
        return splitter_folds(self.cv, X, y, groups, rows)

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
            Labels among `classes_`.
        """
        return self._best().predict(X)

    @_refitted_has("predict_proba")
    def predict_proba(self, X):
        """Class probabilities of the best estimator.

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
