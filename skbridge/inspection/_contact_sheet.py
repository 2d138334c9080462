"""ContactSheetDisplay: predicted images, the uncertain ones first."""

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted

from skbridge._images.decode import to_rgb
from skbridge.inspection._common import BLUE, ORANGE, import_pyplot, shorten

# Inches of one tile, with its texts.
_TILE = (1.55, 2.05)
_LONGEST_NAME = 17
# The bar below an image, in parts of the image's height.
_BAR = (0, -0.11, 1, 0.06)


class ContactSheetDisplay:
    """Contact sheet: each image with its label, probability and runner-up.

    Images are sorted by the margin, the probability of the most probable class minus
    that of the second: the first are those that a person should look at.

    It is recommended to use :meth:`from_estimator`. All parameters are stored as
    attributes.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        The classes.
    proba : ndarray of shape (n_samples, n_classes)
        Their probabilities for each image.
    images : sequence of images
        In any form that :class:`~skbridge.CLIPEmbedder` takes. Only those that are
        drawn are read.

    Attributes
    ----------
    order : ndarray of shape (n_samples,)
        Positions of the images by increasing margin, as they are drawn.
    margins : ndarray of shape (n_samples,)
        Margin of each image.
    prediction, runner_up : ndarray of shape (n_samples,)
        The two most probable classes of each image.
    axes_ : ndarray of Axes
        One per drawn image, once plotted.
    figure_ : Figure
        Once plotted.

    See Also
    --------
    QueryExplanationDisplay : Why one image got its label.
    skbridge.review.label_next : Uncertain images that are not alike.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge.inspection import ContactSheetDisplay
    >>> proba = np.array([[0.9, 0.1], [0.4, 0.6]])
    >>> names = np.array(["cat", "dog"])
    >>> display = ContactSheetDisplay(names, proba, ["a.jpg", "b.jpg"])
    >>> display.order, display.prediction
    (array([1, 0]), array(['cat', 'dog'], dtype='<U3'))
    """

    def __init__(self, classes, proba, images):
        self.classes = classes
        self.proba = proba
        self.images = images

    @property
    def _two_best(self):
        """Positions of the two most probable classes of each image, best first."""
        return np.argsort(-self.proba, axis=1, kind="stable")[:, :2]

    @property
    def prediction(self):
        """Most probable class of each image."""
        return self.classes[self._two_best[:, 0]]

    @property
    def runner_up(self):
        """Second most probable class of each image."""
        return self.classes[self._two_best[:, 1]]

    @property
    def margins(self):
        """Difference of the two largest probabilities of each image."""
        two = np.take_along_axis(self.proba, self._two_best, axis=1)
        return two[:, 0] - two[:, 1]

    @property
    def order(self):
        """Positions of the images by increasing margin."""
        return np.argsort(self.margins, kind="stable")

    @classmethod
    def from_estimator(cls, estimator, X, *, images=None, plot=True, **kwargs):
        """Predict images, and sort them by their margin.

        Parameters
        ----------
        estimator : classifier
            Fitted, with `predict_proba`; such as a bridged classifier, a
            FewShotSearchCV or a Pipeline.
        X : array-like of length n_samples
            Input of the estimator: embeddings or, for a pipeline from images, images.
        images : sequence of images of length n_samples, default=None
            The images of the rows of X; None means that X is the images.
        plot : bool, default=True
            Whether to plot at once.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        ContactSheetDisplay

        Raises
        ------
        TypeError
            If the estimator has no probabilities.
        ValueError
            If there are more or fewer images than rows of X.
        """
        if not hasattr(estimator, "predict_proba"):
            raise TypeError(
                f"{cls.__name__} takes a fitted classifier that has predict_proba; got "
                f"{type(estimator).__name__}."
            )
        check_is_fitted(estimator)
        images = X if images is None else images
        if len(images) != len(X):
            raise ValueError(
                f"images has {len(images)} images, but X has {len(X)} rows. Give the "
                "image of each row, in the same order."
            )
        display = cls(estimator.classes_, estimator.predict_proba(X), images)
        return display.plot(**kwargs) if plot else display

    def plot(self, ax=None, *, n_images=24, n_columns=6):
        """Draw the images of the smallest margins.

        Parameters
        ----------
        ax : array-like of Axes, default=None
            One per image to draw, instead of `n_images` and `n_columns`; None makes a
            new figure.
        n_images : int, default=24
            Number of images to draw; all if there are fewer.
        n_columns : int, default=6
            Number of images in one row of the sheet.

        Returns
        -------
        ContactSheetDisplay
        """
        pyplot = import_pyplot(self)
        if ax is None:
            n_images = min(n_images, len(self.proba))
            n_columns = min(n_columns, n_images)
            n_rows = -(-n_images // n_columns)
            self.figure_, ax = pyplot.subplots(
                n_rows,
                n_columns,
                figsize=(_TILE[0] * n_columns, _TILE[1] * n_rows),
                layout="constrained",
            )
            self.figure_.get_layout_engine().set(h_pad=0.07)
            ax = np.ravel(ax)
            for empty in ax[n_images:]:
                empty.remove()
            ax = ax[:n_images]
        self.axes_ = np.asarray(ax, dtype=object).ravel()[: len(self.proba)]
        self.figure_ = self.axes_[0].get_figure(root=True)
        for tile, row in zip(self.axes_, self.order, strict=False):
            self._draw_tile(tile, row)
        return self

    def _draw_tile(self, ax, row):
        image = to_rgb(_safe_indexing(self.images, int(row)))
        ax.imshow(image)
        # All tiles are squares, so that bars are comparable.
        half = max(image.size) / 2
        x, y = (side / 2 - 0.5 for side in image.size)
        ax.set(xlim=(x - half, x + half), ylim=(y + half, y - half))
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        first, second = self._two_best[row]
        p, q = self.proba[row, [first, second]]
        # A name may contain dollar signs.
        plain = {"loc": "left", "parse_math": False}
        ax.set_title(_named(self.classes[first], p), fontsize=9, **plain)
        bar = ax.inset_axes(_BAR)
        bar.barh([0], [p], color=BLUE)
        bar.barh([0], [q], left=[p], color=ORANGE)
        bar.set(xlim=(0, 1), xticks=[], yticks=[])
        bar.set_facecolor("#e6e6e6")
        bar.spines[:].set_visible(False)
        bar.set_xlabel(_named(self.classes[second], q), fontsize=8, labelpad=2, **plain)


def _named(label, probability):
    return f"{shorten(label, _LONGEST_NAME)} {100 * probability:.0f} %"
