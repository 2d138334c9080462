"""LossCurveDisplay: the loss of a trained classifier, term by term."""

from skbridge.inspection._common import (
    COLOURS,
    check_classifier,
    import_pyplot,
    make_axes,
)

_TERMS = {
    "image": "image",
    "text_eos": "text, EOS tokens",
    "text_joint": "text, joint space",
    "consistency": "consistency",
    "bias": "variance of bias norms",
}


class LossCurveDisplay:
    """Training loss of a classifier over the steps: the total and each term.

    It is recommended to use :meth:`from_estimator`. All parameters are stored as
    attributes.

    Parameters
    ----------
    loss_curve : ndarray of shape (n_iter,)
        The weighted sum that training minimises.
    loss_terms : dict of str -> ndarray of shape (n_iter,)
        Its terms, without weights: any of ``"image"``, ``"text_eos"``,
        ``"text_joint"``, ``"consistency"`` and ``"bias"``.

    Attributes
    ----------
    axes_ : ndarray of Axes
        The total, then one per term, once plotted.
    figure_ : Figure
        Once plotted.

    See Also
    --------
    BiasNormDisplay : The norms that the bias term makes similar.

    Notes
    -----
    The terms ``"image"`` to ``"consistency"`` are cross entropies, in nats. That of
    ``"image"`` multiplies cosines by CLIP's logit scale. The others do not, so that
    they stay high.
    ``"bias"`` is the variance of the norms of the class-specific bias. The total is
    ``lambda_it image + (1 - lambda_it) (text_eos + text_joint) / 2 + lambda_c
    consistency + lambda_b bias``.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge.inspection import LossCurveDisplay
    >>> terms = {"image": np.array([3.0, 1.0])}
    >>> display = LossCurveDisplay(np.array([2.0, 1.0]), terms)
    >>> list(display.loss_terms)
    ['image']
    """

    def __init__(self, loss_curve, loss_terms):
        self.loss_curve = loss_curve
        self.loss_terms = loss_terms

    @classmethod
    def from_estimator(cls, estimator, *, plot=True, ax=None):
        """Take the curves of a trained classifier.

        Parameters
        ----------
        estimator : bridged classifier, FewShotSearchCV or Pipeline
            Fitted with ``mode="trained"``. A BridgedGDAClassifier has the total only.
        plot : bool, default=True
            Whether to plot at once.
        ax : array-like of Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        LossCurveDisplay

        Raises
        ------
        ValueError
            If no training step was taken.
        """
        classifier, _ = check_classifier(estimator, cls)
        if not len(classifier.loss_curve_):
            cause = (
                "mode is 'closed_form'; fit it with mode='trained'"
                if classifier.mode == "closed_form"
                else "early stopping took no step from the closed form; fit on more "
                "shots per class, or with early_stopping=False"
            )
            raise ValueError(f"The classifier has no loss curve: {cause}.")
        display = cls(classifier.loss_curve_, classifier.loss_terms_)
        return display.plot(ax=ax) if plot else display

    def plot(self, ax=None):
        """Draw the total and each term, each on its own axes.

        Parameters
        ----------
        ax : array-like of Axes, default=None
            One for the total and one per term; None makes a new figure.

        Returns
        -------
        LossCurveDisplay
        """
        shown = [name for name in _TERMS if name in self.loss_terms]
        n_panels = 1 + len(shown)
        if ax is None:
            n_rows = 1 if n_panels <= 3 else 2
            n_columns = -(-n_panels // n_rows)
            _, grid = import_pyplot(self).subplots(
                n_rows,
                n_columns,
                figsize=(3.4 * n_columns, 2.7 * n_rows),
                layout="constrained",
                squeeze=False,
            )
            for unused in grid.ravel()[n_panels:]:
                unused.axis("off")
            ax = grid.ravel()[:n_panels]
        self.figure_, self.axes_ = make_axes(self, ax, n_panels)
        curves = [("total, weighted", self.loss_curve, "black")]
        for name, colour in zip(_TERMS, COLOURS, strict=False):
            if name in shown:
                curves.append((_TERMS[name], self.loss_terms[name], colour))
        for axes, (title, curve, colour) in zip(self.axes_, curves, strict=True):
            axes.plot(curve, color=colour, lw=1.8)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("Training step")
            axes.set_ylabel(
                "Squared norm" if title == _TERMS["bias"] else "Loss (nats)"
            )
            axes.grid(alpha=0.3)
        return self
