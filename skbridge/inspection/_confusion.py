"""PrototypeConfusionDisplay: confusion matrices of plain and bridged prototypes."""

import numpy as np
from sklearn.metrics import confusion_matrix

from skbridge._rows import unit, within_range
from skbridge.inspection._common import (
    COLOUR_MAP,
    check_classifier,
    class_codes,
    label_classes,
    make_axes,
)

# Largest number of cells along a side: more would be narrower than pixels.
_MOST_CELLS = 200


def normalise_rows(matrix):
    """Divide each row by its sum; a row of zeros stays as it is."""
    total = matrix.sum(axis=1, keepdims=True)
    return matrix / np.where(total > 0, total, 1)


def pool_cells(shares, size):
    """Confusion between groups of `size` successive classes.

    Parameters
    ----------
    shares : ndarray of shape (n_classes, n_classes)
        Confusion matrix whose rows are divided by their sums.
    size : int
        Number of classes in a group; the last group may have fewer.

    Returns
    -------
    ndarray of shape (n_groups, n_groups)
        Mean, over classes with samples in the group of the row, of the share of
        samples predicted as any class in the group of the column.
    """
    starts = np.arange(0, len(shares), size)
    sums = np.add.reduceat(np.add.reduceat(shares, starts, axis=0), starts, axis=1)
    return normalise_rows(sums)


class PrototypeConfusionDisplay:
    """Confusion matrices of plain and bridged prototypes, side by side.

    An image embedding is compared with plain prototypes, the means of the shots of each
    class, and with bridged prototypes, the means of the bridged shots. The classifier
    of the paper uses no class texts in either. This is the paper's figure 2.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`. All
    parameters are stored as attributes.

    Parameters
    ----------
    confusion_matrices : dict of str -> ndarray of shape (n_classes, n_classes)
        By name of the method, the number of images of each class (row) that are
        predicted as each class (column).
    classes : ndarray of shape (n_classes,)
        The classes, in that order.

    Attributes
    ----------
    accuracy : dict of str -> float
        Share of the images on the diagonal.
    axes_ : ndarray of Axes
        One per method, once plotted.
    figure_ : Figure
        Once plotted.
    colorbar_ : Colorbar
        Once plotted.

    See Also
    --------
    SimilarityDisplay : The cosines behind the predictions.

    Examples
    --------
    >>> from skbridge.inspection import PrototypeConfusionDisplay
    >>> display = PrototypeConfusionDisplay.from_predictions(
    ...     ["cat", "dog", "dog"],
    ...     {"plain": ["cat", "cat", "dog"], "bridged": ["cat", "dog", "dog"]},
    ...     plot=False,
    ... )
    >>> display.confusion_matrices["plain"]
    array([[1, 0],
           [1, 1]])
    >>> display.accuracy["bridged"]
    1.0
    """

    def __init__(self, confusion_matrices, classes):
        self.confusion_matrices = confusion_matrices
        self.classes = classes

    @property
    def accuracy(self):
        """Share of the images on the diagonal, by method."""
        return {
            name: float(np.trace(matrix) / matrix.sum())
            for name, matrix in self.confusion_matrices.items()
        }

    @classmethod
    def from_estimator(cls, estimator, X, y, *, plot=True, ax=None, **kwargs):
        """Classify by the prototypes of a fitted classifier.

        Parameters
        ----------
        estimator : bridged classifier, FewShotSearchCV or Pipeline
            Fitted; a pipeline takes images, the others embeddings. Its blending
            weights do not matter: predictions of bridged prototypes are by z3 alone,
            in the metric of the classifier.
        X : array-like
            Query images.
        y : array-like of shape (n_samples,)
            Their labels.
        plot : bool, default=True
            Whether to plot at once.
        ax : array-like of two Axes, default=None
            Axes to draw on; None makes a new figure.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        PrototypeConfusionDisplay

        Raises
        ------
        ValueError
            If y has labels that the estimator was not fitted on.
        """
        classifier, embed = check_classifier(estimator, cls)
        X, classes = embed(X), classifier.classes_
        class_codes(y, classes, len(X))
        scores = {
            "plain prototypes": unit(within_range(X)) @ classifier.prototypes_.T,
            "bridged prototypes": classifier.component_logits(X)[2],
        }
        predictions = {
            name: classes[score.argmax(axis=1)] for name, score in scores.items()
        }
        return cls.from_predictions(
            y, predictions, classes=classes, plot=plot, ax=ax, **kwargs
        )

    @classmethod
    def from_predictions(
        cls, y_true, predictions, *, classes=None, plot=True, ax=None, **kwargs
    ):
        """Compare predictions made beforehand.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Labels.
        predictions : dict of str -> array-like of shape (n_samples,)
            Predicted labels, by the name of the method.
        classes : array-like of shape (n_classes,), default=None
            Classes to show, in this order; None takes all that occur, sorted.
        plot : bool, default=True
            Whether to plot at once.
        ax : array-like of Axes, default=None
            One per method.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        PrototypeConfusionDisplay

        Raises
        ------
        TypeError
            If `predictions` is not a dict.
        """
        if not hasattr(predictions, "items"):
            raise TypeError(
                "predictions must be a dict of method -> predicted labels, got "
                f"{type(predictions).__name__}. Wrap it: {{'plain': predictions}}."
            )
        if classes is None:
            classes = np.unique(np.concatenate([y_true, *predictions.values()]))
        matrices = {
            name: confusion_matrix(y_true, predicted, labels=classes)
            for name, predicted in predictions.items()
        }
        display = cls(matrices, np.asarray(classes))
        return display.plot(ax=ax, **kwargs) if plot else display

    def plot(self, ax=None, *, cmap=COLOUR_MAP):
        """Draw the matrices, each row divided by the number of its images.

        Above 200 classes, a cell is for groups of successive classes: it shows the
        share of images in the row's group predicted as any class in the column's group.

        Parameters
        ----------
        ax : array-like of Axes, default=None
            One per method; None makes a new figure.
        cmap : str or Colormap, default="cividis"
            Colours of the shares.

        Returns
        -------
        PrototypeConfusionDisplay
        """
        n_panels, n_classes = len(self.confusion_matrices), len(self.classes)
        self.figure_, self.axes_ = make_axes(
            self,
            ax,
            n_panels,
            (5.2, 5.6),
            layout="compressed",
            sharex=True,
            sharey=True,
        )
        from matplotlib.colors import PowerNorm

        size = -(-n_classes // _MOST_CELLS)
        groups = f", in groups of {size}" if size > 1 else ""
        accuracy = self.accuracy
        for axes, (name, matrix) in zip(
            self.axes_, self.confusion_matrices.items(), strict=True
        ):
            cells = pool_cells(normalise_rows(matrix), size)
            edge = len(cells) * size - 0.5
            # The square root makes rare confusions visible beside the diagonal.
            image = axes.imshow(
                cells,
                cmap=cmap,
                norm=PowerNorm(0.5, vmin=0, vmax=1),
                extent=(-0.5, edge, edge, -0.5),
                interpolation="nearest",
            )
            axes.set(
                title=f"{name}\naccuracy {100 * accuracy[name]:.1f} %",
                xlabel=f"Predicted class{groups}",
                xlim=(-0.5, n_classes - 0.5),
                ylim=(n_classes - 0.5, -0.5),
            )
        self.axes_[0].set_ylabel(f"True class{groups}")
        self.colorbar_ = self.figure_.colorbar(
            image,
            ax=list(self.axes_),
            shrink=0.7,
            ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1],
            format="%g",
            label="Share of the true class's images (square-root scale)",
        )
        label_classes(self.axes_, self.classes, sides="xy")
        return self
