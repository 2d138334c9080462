"""SimilarityDisplay: cosines of images of the same class and of different ones."""

import numpy as np

from skbridge._rows import batches, unit, within_range
from skbridge.inspection._common import (
    BLUE,
    ORANGE,
    check_classifier,
    class_codes,
    make_axes,
)

_N_BINS = 2000
_ROWS_AT_ONCE = 256


def count_cosines(rows, columns, row_codes, column_codes, *, skip_diagonal):
    """Histograms of the cosines of all pairs, by whether their classes agree.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_features)
        Unit rows.
    columns : ndarray of shape (n_columns, n_features)
        Unit rows, each of which is compared with each of `rows`.
    row_codes, column_codes : ndarray of int
        Classes of `rows` and of `columns`.
    skip_diagonal : bool
        Whether to leave out pairs (i, i), of an image with itself.

    Returns
    -------
    paired, unpaired : ndarray of shape (2000,), int
        Counts in bins of width 0.001 from -1 to 1.
    """
    counts = np.zeros((2, _N_BINS), dtype=np.int64)
    for block in batches(len(rows), _ROWS_AT_ONCE):
        cosines = rows[block] @ columns.T
        # Rounding may push a cosine beyond 1.
        bins = ((cosines + 1) * (_N_BINS / 2)).astype(np.int64).clip(0, _N_BINS - 1)
        same = row_codes[block, None] == column_codes
        counted = np.ones_like(same)
        if skip_diagonal:
            i = np.arange(block.start, block.stop)
            counted[i - block.start, i] = False
        for kind, mask in enumerate((same & counted, ~same)):
            counts[kind] += np.bincount(bins[mask], minlength=_N_BINS)
    return counts[0], counts[1]


def separation(paired, unpaired):
    """Probability that a paired pair has the higher cosine; ties count half.

    Parameters
    ----------
    paired, unpaired : ndarray of shape (n_bins,)
        Histograms over the same bins.

    Returns
    -------
    float
        The area under the ROC curve: 0.5 without separation, 1 with full separation.
    """
    below = np.cumsum(unpaired) - unpaired / 2
    return float(paired @ below / (paired.sum() * unpaired.sum()))


class SimilarityDisplay:
    """Cosine similarities of paired and unpaired images, before and after bridging.

    A pair is *paired* if both are of one class. The more the two distributions
    overlap, the less a cosine says about the class. This is the paper's figure 7.

    It is recommended to use :meth:`from_estimator`. All parameters are stored as
    attributes.

    Parameters
    ----------
    paired : dict of str -> ndarray of shape (2000,)
        Number of paired pairs in each bin of the cosine, by comparison:
        ``"image, image"``, ``"image, bridged image"`` and, where there are texts,
        ``"image, class text"``.
    unpaired : dict of str -> ndarray of shape (2000,)
        The same for pairs of different classes.

    Attributes
    ----------
    bin_edges : ndarray of shape (2001,)
        Edges of the bins, from -1 to 1 in steps of 0.001.
    separation : dict of str -> float
        Probability that a random paired pair has a higher cosine than a random
        unpaired pair (area under the ROC curve), up to the width of a bin.
    axes_ : ndarray of Axes
        One per comparison, once plotted.
    figure_ : Figure
        Once plotted.

    See Also
    --------
    PrototypeConfusionDisplay : Predictions from the two comparisons.

    Notes
    -----
    With f an image embedding and f^ the bridged one, the comparisons are the
    cosines of f_i and f_j, of f_i and f^_j, and of f_i and the class text T_k, over
    all images i, all images j except i, and all classes k. Images are bridged as
    queries, without the class-specific bias, which would use their labels.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge import SeMoBridgeClassifier, TextHead
    >>> from skbridge.inspection import SimilarityDisplay
    >>> head = TextHead.from_features(["cat", "dog"], np.eye(2, 5))
    >>> X = np.repeat(np.eye(2, 5), 3, axis=0) + 0.1
    >>> y = np.repeat(["cat", "dog"], 3)
    >>> classifier = SeMoBridgeClassifier(head, bridge="identity")
    >>> display = SimilarityDisplay.from_estimator(
    ...     classifier.fit(X, y), X, y, plot=False
    ... )
    >>> display.separation["image, image"]
    1.0
    """

    def __init__(self, paired, unpaired):
        self.paired = paired
        self.unpaired = unpaired

    @property
    def bin_edges(self):
        """Edges of the bins of the cosine."""
        return np.linspace(-1, 1, _N_BINS + 1)

    @property
    def separation(self):
        """Area under the ROC curve of each comparison."""
        return {
            name: separation(counts, self.unpaired[name])
            for name, counts in self.paired.items()
        }

    @classmethod
    def from_estimator(cls, estimator, X, y, *, plot=True, ax=None, **kwargs):
        """Compare images with one another through a fitted classifier's bridge.

        Parameters
        ----------
        estimator : bridged classifier, FewShotSearchCV or Pipeline
            Fitted; a pipeline takes images, the others embeddings.
        X : array-like
            Images, preferably other ones than the shots.
        y : array-like of shape (n_samples,)
            Their labels: at least two classes, one of them at least twice.
        plot : bool, default=True
            Whether to plot at once.
        ax : array-like of Axes, default=None
            One per comparison: three, or two without texts.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        SimilarityDisplay

        Raises
        ------
        ValueError
            If y has unknown labels, or no two images share a class, or all do.
        """
        classifier, embed = check_classifier(estimator, cls)
        X = embed(X)
        codes = class_codes(y, classifier.classes_, len(X))
        counts = np.bincount(codes)
        if counts.max() < 2 or np.count_nonzero(counts) < 2:
            raise ValueError(
                "SimilarityDisplay compares images of one class with one another and "
                "with those of other classes; y must have at least two labels, one of "
                f"them twice. Got {len(codes)} images of {np.count_nonzero(counts)} "
                "classes."
            )
        q, bridged = unit(within_range(X)), classifier.bridge_embeddings(X)
        head = classifier.text_head_
        texts = None if head is None else head.text_features
        columns = {"image, image": (q, codes), "image, bridged image": (bridged, codes)}
        if texts is not None:
            columns["image, class text"] = (texts, np.arange(len(texts)))
        paired, unpaired = {}, {}
        for name, (other, other_codes) in columns.items():
            paired[name], unpaired[name] = count_cosines(
                q, other, codes, other_codes, skip_diagonal=other is not texts
            )
        display = cls(paired, unpaired)
        return display.plot(ax=ax, **kwargs) if plot else display

    def plot(self, ax=None, *, n_bins=50):
        """Draw the distributions.

        Parameters
        ----------
        ax : array-like of Axes, default=None
            One per comparison; None makes a new figure.
        n_bins : int, default=50
            Approximate number of bars over the range of the cosines.

        Returns
        -------
        SimilarityDisplay
        """
        self.figure_, self.axes_ = make_axes(self, ax, len(self.paired), (3.6, 3.2))
        for axes, name in zip(self.axes_, self.paired, strict=True):
            both = self.paired[name] + self.unpaired[name]
            occupied = np.flatnonzero(both)
            first, last = occupied[0], occupied[-1] + 1
            width = max(1, -(-(last - first) // n_bins))
            starts = np.arange(first, last, width)
            edges = self.bin_edges[np.append(starts, starts[-1] + width).clip(0, 2000)]
            for label, counts, colour in (
                ("same class", self.paired[name], BLUE),
                ("different classes", self.unpaired[name], ORANGE),
            ):
                bars = np.add.reduceat(counts[:last], starts)
                density = bars / bars.sum() / np.diff(edges)
                axes.stairs(density, edges, fill=True, color=colour, alpha=0.45)
                axes.stairs(density, edges, color=colour, lw=1.5, label=label)
            axes.set_title(
                f"{name}\nseparation (AUC) {self.separation[name]:.3f}", fontsize=10
            )
            axes.set_xlabel("Cosine similarity")
            # Space above the bars for the legend, equal in all panels.
            axes.set_ylim(0, 1.3 * axes.dataLim.ymax)
            axes.locator_params(axis="x", nbins=6)
        self.axes_[0].set_ylabel("Density of pairs")
        self.axes_[0].legend(frameon=False, fontsize=8, loc="upper left")
        return self
