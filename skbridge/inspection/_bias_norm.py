"""BiasNormDisplay: norms of the class-specific bias."""

import numpy as np

from skbridge.inspection._common import (
    COLOURS,
    check_classifier,
    check_estimators,
    label_classes,
    make_axes,
)


class BiasNormDisplay:
    """Norms of the class-specific bias of trained classifiers, side by side.

    Training adds a bias b_k to the tokens of the shots of class k. Without the bias
    loss (``lambda_b=0``) a few classes may learn a much larger bias than the others;
    with it, the norms stay similar. These are the paper's figures 8 and 10.

    It is recommended to use :meth:`from_estimator` or :meth:`from_estimators`. All
    parameters are stored as attributes.

    Parameters
    ----------
    norms : dict of str -> ndarray of shape (n_classes,)
        Euclidean norm of the bias of each class, by name of the classifier.
    classes : ndarray of shape (n_classes,)
        The classes, in that order.

    Attributes
    ----------
    axes_ : ndarray of Axes
        One per classifier, once plotted.
    figure_ : Figure
        Once plotted.

    See Also
    --------
    LossCurveDisplay : Loss terms while training.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge.inspection import BiasNormDisplay
    >>> display = BiasNormDisplay({"CSB": np.array([0.5, 0.7])}, np.array(["a", "b"]))
    >>> float(display.norms["CSB"].mean())
    0.6
    """

    def __init__(self, norms, classes):
        self.norms = norms
        self.classes = classes

    @classmethod
    def from_estimator(cls, estimator, *, name=None, plot=True, ax=None, **kwargs):
        """Take the norms of one classifier.

        Parameters
        ----------
        estimator : SeMoBridgeClassifier, FewShotSearchCV or Pipeline
            Fitted with ``mode="trained"`` and ``csb=True``.
        name : str, default=None
            Title; None means the value of lambda_b.
        plot : bool, default=True
            Whether to plot at once.
        ax : Axes, default=None
            Axes to draw on; None makes a new figure.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        BiasNormDisplay

        Raises
        ------
        ValueError
            If the classifier learned no bias.
        """
        if name is None:
            classifier, _ = check_classifier(estimator, cls, only_semobridge=True)
            name = f"lambda_b = {classifier.lambda_b:g}"
        return cls.from_estimators({name: estimator}, plot=plot, ax=ax, **kwargs)

    @classmethod
    def from_estimators(cls, estimators, *, plot=True, ax=None, **kwargs):
        """Take the norms of several classifiers of the same classes.

        Parameters
        ----------
        estimators : dict of str -> estimator
            As in :meth:`from_estimator`, by the name to show.
        plot : bool, default=True
            Whether to plot at once.
        ax : array-like of Axes, default=None
            One per classifier.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        BiasNormDisplay

        Raises
        ------
        ValueError
            If one of them learned no bias, or their classes differ.
        """
        check_estimators(estimators, cls)
        norms, classes = {}, None
        for name, estimator in estimators.items():
            classifier, _ = check_classifier(estimator, cls, only_semobridge=True)
            if not classifier.class_bias_.any():
                raise ValueError(
                    f"The classifier {name!r} has no class-specific bias: class_bias_ "
                    f"is zero (mode={classifier.mode!r}, solver={classifier.solver!r}, "
                    f"csb={classifier.csb!r}). Fit it with mode='trained' and "
                    "csb=True; where early stopping then takes no step, with "
                    "solver='adamw'."
                )
            if classes is None:
                classes = classifier.classes_
            if not np.array_equal(classes, classifier.classes_):
                raise ValueError(
                    "The classifiers must share their classes, but those of "
                    f"{name!r} ({len(classifier.classes_)}) differ from those of "
                    f"{next(iter(norms))!r} ({len(classes)}). Fit them on shots of the "
                    "same classes."
                )
            norms[name] = np.linalg.norm(classifier.class_bias_, axis=1)
        display = cls(norms, classes)
        return display.plot(ax=ax, **kwargs) if plot else display

    def plot(self, ax=None):
        """Draw one point per class, with mean and standard deviation over classes.

        Parameters
        ----------
        ax : array-like of Axes, default=None
            One per classifier; None makes a new figure.

        Returns
        -------
        BiasNormDisplay
        """
        n_panels = len(self.norms)
        width = 5.0 if n_panels < 3 else 3.8
        self.figure_, self.axes_ = make_axes(
            self, ax, n_panels, (width, 4.0), sharey=True
        )
        positions = np.arange(len(self.classes))
        for axes, (name, norms), colour in zip(
            self.axes_, self.norms.items(), np.resize(COLOURS, n_panels), strict=True
        ):
            mean, spread = norms.mean(), norms.std()
            axes.axhspan(mean - spread, mean + spread, color="0.9", zorder=0)
            axes.axhline(mean, color="black", lw=1, zorder=1)
            size = np.clip(2000 / len(norms), 6, 30)
            axes.scatter(positions, norms, s=size, color=colour, zorder=2)
            axes.set_title(
                f"{name}\nmean {mean:.3g}, standard deviation {spread:.2g}", fontsize=10
            )
            axes.set_xlabel("Class")
            axes.margins(x=0.02)
        self.axes_[0].set_ylabel("Norm of the class-specific bias")
        largest = max(norms.max() for norms in self.norms.values())
        self.axes_[0].set_ylim(0, 1.05 * largest)
        label_classes(self.axes_, self.classes)
        return self
