"""BlendSimplexDisplay: accuracy over all proportions of z1, z2 and z3."""

import numpy as np

from skbridge._rows import batches
from skbridge.inspection._common import (
    COLOUR_MAP,
    check_classifier,
    class_codes,
    make_axes,
)

_FLOATS_AT_ONCE = 2**22
_CORNERS = np.array([[0.5, np.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])
_CORNER_NAMES = (
    r"$\lambda_1$: texts",
    "$\\lambda_2$: bridged query\nto prototypes",
    "$\\lambda_3$: query to\nbridged prototypes",
)
# Offsets of the values at the left, lower and right side, in points.
_LABEL_OFFSETS = ((-9, 4), (0, -9), (9, 4))


def simplex_grid(n_steps):
    """All triples of multiples of ``1 / n_steps`` that sum to 1.

    Returns
    -------
    ndarray of shape ((n_steps + 1) (n_steps + 2) / 2, 3)
    """
    first, second = np.indices((n_steps + 1, n_steps + 1)).reshape(2, -1)
    counts = np.stack([first, second, n_steps - first - second], axis=1)
    return counts[counts[:, 2] >= 0] / n_steps


def best_point(lambdas, accuracy):
    """Index of the best weights; among ties, the nearest to the mean of the ties.

    Accuracy has plateaus, and a point in the middle of one is safer than a point at its
    edge.
    """
    tied = np.flatnonzero(accuracy == accuracy.max())
    distance = np.linalg.norm(lambdas[tied] - lambdas[tied].mean(axis=0), axis=1)
    return int(tied[distance.argmin()])


class BlendSimplexDisplay:
    """Accuracy over the simplex of lambda_1, lambda_2 and lambda_3.

    Predictions depend on the proportions of the three blending weights only, so that a
    triangle shows all blends. At its corners are z1, z2 and z3 alone.

    It is recommended to use :meth:`from_estimator`. All parameters are stored as
    attributes.

    Parameters
    ----------
    lambdas : ndarray of shape (n_points, 3)
        Weights, rows that sum to 1.
    accuracy : ndarray of shape (n_points,)
        Share of the held-out images that are classified correctly.
    estimator_lambdas : ndarray of shape (3,)
        Weights of the classifier itself, scaled to sum to 1.
    estimator_accuracy : float
        Its accuracy.

    Attributes
    ----------
    best_lambdas : ndarray of shape (3,)
        The best weights; among ties, those nearest to the mean of the ties.
    best_accuracy : float
        Accuracy of the best weights.
    ax_ : Axes
        Once plotted.
    colorbar_ : Colorbar
        Once plotted.
    figure_ : Figure
        Once plotted.

    See Also
    --------
    skbridge.FewShotSearchCV : Chooses the weights from the shots alone.

    Notes
    -----
    The best point is the best for the given images. Choose it with images held out
    for that purpose: on test images its accuracy is too optimistic, and the shots, from
    which the prototypes are made, favour z2 and z3.

    Under ``blending="exponential"`` the weights are those of the three exponential
    terms, at the classifier's alpha, beta, gamma and smoothness.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge import SeMoBridgeClassifier, TextHead
    >>> from skbridge.inspection import BlendSimplexDisplay
    >>> head = TextHead.from_features(["cat", "dog"], np.eye(2, 5))
    >>> X, y = np.eye(2, 5) + 0.1, ["cat", "dog"]
    >>> classifier = SeMoBridgeClassifier(head, bridge="identity")
    >>> display = BlendSimplexDisplay.from_estimator(
    ...     classifier.fit(X, y), X, y, n_steps=3, plot=False
    ... )
    >>> display.lambdas.shape, display.best_accuracy
    ((10, 3), 1.0)
    """

    def __init__(self, lambdas, accuracy, estimator_lambdas, estimator_accuracy):
        self.lambdas = lambdas
        self.accuracy = accuracy
        self.estimator_lambdas = estimator_lambdas
        self.estimator_accuracy = estimator_accuracy

    @property
    def best_lambdas(self):
        """The best weights."""
        return self.lambdas[best_point(self.lambdas, self.accuracy)]

    @property
    def best_accuracy(self):
        """Accuracy of the best weights."""
        return float(self.accuracy.max())

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, n_steps=20, plot=True, ax=None, **kwargs
    ):
        """Blend the component logits of a fitted classifier in every proportion.

        Parameters
        ----------
        estimator : SeMoBridgeClassifier, FewShotSearchCV or Pipeline
            Fitted, with texts; a pipeline takes images, the others embeddings.
        X : array-like
            Held-out images: neither the shots nor test images.
        y : array-like of shape (n_samples,)
            Their labels.
        n_steps : int, default=20
            Number of steps along a side of the triangle; 20 make 231 points.
        plot : bool, default=True
            Whether to plot at once.
        ax : Axes, default=None
            Axes to draw on; None makes a new figure.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        BlendSimplexDisplay

        Raises
        ------
        ValueError
            If the classifier has no texts, y has unknown labels, or `n_steps` is not
            a positive integer.
        """
        classifier, embed = check_classifier(estimator, cls, only_semobridge=True)
        head = classifier.text_head_
        if head is None or head.text_features is None:
            raise ValueError(
                "BlendSimplexDisplay weighs z1, z2 and z3, but this classifier has no "
                "class texts, so no z1. Fit one with texts that have classes."
            )
        if not isinstance(n_steps, int | np.integer) or n_steps < 1:
            raise ValueError(
                f"n_steps must be a positive int, got {n_steps!r} instead. It is the "
                "number of steps along a side of the triangle; 20 is usual."
            )
        X = embed(X)
        codes = class_codes(y, classifier.classes_, len(X))
        own = np.array(classifier.blend_.lambdas)
        lambdas = simplex_grid(n_steps)
        names = ("lambda_1", "lambda_2", "lambda_3")
        blends = [
            classifier.reblend(**dict(zip(names, point, strict=True))).blend_
            for point in [*lambdas.tolist(), own.tolist()]
        ]
        hits = np.zeros(len(blends))
        n_rows = max(1, _FLOATS_AT_ONCE // len(classifier.classes_))
        for rows in batches(len(X), n_rows):
            components = classifier.component_logits(X[rows])
            for i, blend in enumerate(blends):
                predicted = blend.scores(components).argmax(axis=1)
                hits[i] += np.count_nonzero(predicted == codes[rows])
        accuracy = hits / len(X)
        display = cls(lambdas, accuracy[:-1], own / own.sum(), float(accuracy[-1]))
        return display.plot(ax=ax, **kwargs) if plot else display

    def plot(self, ax=None, *, cmap=COLOUR_MAP):
        """Draw the triangle.

        Parameters
        ----------
        ax : Axes, default=None
            None makes a new figure.
        cmap : str or Colormap, default="cividis"
            Colours of the accuracy.

        Returns
        -------
        BlendSimplexDisplay
        """
        self.figure_, (self.ax_,) = make_axes(self, ax, 1, (6.0, 4.9))
        ax = self.ax_
        colours = ax.tripcolor(
            *(self.lambdas @ _CORNERS).T,
            100 * self.accuracy,
            cmap=cmap,
            shading="gouraud",
        )
        self._draw_grid()
        for lambdas, accuracy, name, marker, size in (
            (self.best_lambdas, self.best_accuracy, "best", "*", 15),
            (self.estimator_lambdas, self.estimator_accuracy, "classifier", "o", 8),
        ):
            shown = ", ".join(f"{weight:.2f}" for weight in lambdas)
            ax.plot(
                *(lambdas @ _CORNERS),
                marker,
                ms=size,
                mfc="white",
                mec="black",
                ls="none",
                label=f"{name}: ({shown}), {100 * accuracy:.1f} %",
            )
        ax.legend(
            frameon=False,
            fontsize=9,
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
        )
        ax.set(xlim=(-0.12, 1.12), ylim=(-0.19, 1.01), aspect="equal")
        ax.axis("off")
        self.colorbar_ = self.figure_.colorbar(
            colours, ax=ax, shrink=0.8, label="Accuracy on the images given (%)"
        )
        return self

    def _draw_grid(self):
        """Draw sides, lines of equal weight, and their values beside the triangle."""
        self.ax_.fill(*_CORNERS.T, fill=False, ec="black", lw=1)
        for corner, name in enumerate(_CORNER_NAMES):
            following = (corner + 1) % 3
            for level in (0.2, 0.4, 0.6, 0.8):
                # The line ends on two sides; its value is written at the end on the
                # side to the following corner.
                ends = np.zeros((2, 3))
                ends[:, corner] = level
                ends[0, following] = ends[1, following - 2] = 1 - level
                start, _ = ends @ _CORNERS
                self.ax_.plot(*(ends @ _CORNERS).T, color="0.3", lw=0.5, alpha=0.6)
                self.ax_.annotate(
                    f"$\\lambda_{corner + 1}$ = {level:g}",
                    start,
                    xytext=_LABEL_OFFSETS[corner],
                    textcoords="offset points",
                    fontsize=7,
                    ha=("right", "center", "left")[corner],
                    va=("center", "top", "center")[corner],
                )
            outward = _CORNERS[corner] - _CORNERS.mean(axis=0)
            self.ax_.text(
                *(_CORNERS[corner] + 0.09 * outward / np.linalg.norm(outward)),
                name,
                fontsize=9,
                ha="center",
                va="bottom" if corner == 0 else "top",
            )
