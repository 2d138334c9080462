"""QueryExplanationDisplay: the shots and texts behind the label of one query."""

from textwrap import fill

import numpy as np
from sklearn.utils import _safe_indexing

from skbridge._images.decode import to_rgb
from skbridge._rows import unit
from skbridge.inspection._common import (
    BLUE,
    COLOURS,
    GREEN,
    ORANGE,
    check_classifier,
    class_codes,
    import_pyplot,
    make_axes,
    shorten,
)

_TERMS = (
    ("z1", "z1, query to class text", BLUE),
    ("z2", "z2, bridged query to prototype", ORANGE),
    ("z3", "z3, query to bridged prototype", GREEN),
)
# Unit prototypes at a larger distance come from different shots; batches change
# embeddings by less.
_SAME_PROTOTYPE = 1e-2
_PROMPTS_SHOWN = 2


def score_terms(blend, cosines):
    """Part of z1, z2 and z3 in the scores of one query.

    Parameters
    ----------
    blend : Blend
        Of a fitted classifier.
    cosines : ndarray of shape (3, n_classes)
        z1, z2 and z3; NaN for a missing one.

    Returns
    -------
    ndarray of shape (3, n_classes)
        Columns sum to the scores.
    """
    parts = [blend.part(i, z.copy()) for i, z in enumerate(cosines)]
    return np.nan_to_num(np.stack(parts))


def shares(parts):
    """Parts divided by their sum; NaN where that is zero."""
    total = parts.sum()
    return parts / total if total else np.full(len(parts), np.nan)


class QueryExplanationDisplay:
    """Contributions of shots and texts to the scores of one query.

    A score is a sum of three terms: z1 (query against class text), z2 (bridged query
    against prototype) and z3 (query against bridged prototype). The last two are sums
    over the shots of a class, so that each shot and each text has an exact part in the
    scores of the predicted class and of the runner-up.

    It is recommended to use :meth:`from_estimator`. All parameters are stored as
    attributes.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        The classes.
    terms : ndarray of shape (3, n_classes)
        Part of z1, z2 and z3 in the score of each class.
    shots : dict of label -> (rows, parts)
        For the predicted class and the runner-up, in that order: positions of the
        shots, and the part of each in the score of its class.
    prompts : dict of label -> tuple of str or None
        The prompts of the two classes; None without texts, or if the text head does
        not store its prompts.

    Attributes
    ----------
    prediction, runner_up : label
        The two classes of the highest scores.
    score_share : ndarray of shape (3,)
        Shares of z1, z2 and z3 in the winning score; they sum to 1.
    margin_share : ndarray of shape (3,)
        Shares of z1, z2 and z3 in the margin between the two scores. They sum to 1; a
        negative share favours the runner-up. NaN if the scores are equal.
    text_part : dict of label -> float
        Part of the class text in the score of the two classes.
    axes_ : ndarray of two Axes
        Scores and margin, once plotted.
    figure_ : Figure
        Once plotted.

    See Also
    --------
    skbridge.SeMoBridgeClassifier.component_logits : z1, z2 and z3.

    Notes
    -----
    Under ``blending="linear"`` the term of z_i is ``lambda_i z_i``, and the part of a
    shot in z2 or z3 is its summand of the cosine: with prototype ``F'_k = sum_j w_j f_j
    / ||sum_j w_j f_j||``, shot j has the part ``lambda_2 w_j q^ . f_j / ||sum_j w_j
    f_j||`` in the term of z2. These parts are exact.

    Under ``blending="exponential"`` the score is also a sum of three terms, such as
    ``lambda_1 exp(-alpha (1 - z1))``, and the share of z_i is that of its term. But a
    term is not a sum over shots: it is divided among them in proportion to their parts
    in its cosine.

    For :class:`skbridge.BridgedGDAClassifier` the class text counts as one more shot in
    z3; that part is in `text_part`, together with the term of z1.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge import SeMoBridgeClassifier, TextHead
    >>> from skbridge.inspection import QueryExplanationDisplay
    >>> head = TextHead.from_features(["cat", "dog"], np.eye(2, 5))
    >>> X, y = np.eye(2, 5) + 0.1, ["cat", "dog"]
    >>> classifier = SeMoBridgeClassifier(head, bridge="identity")
    >>> display = QueryExplanationDisplay.from_estimator(
    ...     classifier.fit(X, y), X[1], X, y, plot=False
    ... )
    >>> str(display.prediction), display.score_share.round(2)
    ('dog', array([0.89, 0.  , 0.11]))
    """

    def __init__(self, classes, terms, shots, prompts):
        self.classes = classes
        self.terms = terms
        self.shots = shots
        self.prompts = prompts

    @property
    def _order(self):
        return np.argsort(-self.terms.sum(axis=0), kind="stable")

    @property
    def prediction(self):
        """Class of the highest score."""
        return self.classes[self._order[0]]

    @property
    def runner_up(self):
        """Class of the second highest score."""
        return self.classes[self._order[1]]

    @property
    def score_share(self):
        """Shares of z1, z2 and z3 in the winning score."""
        return shares(self.terms[:, self._order[0]])

    @property
    def margin_share(self):
        """Shares of z1, z2 and z3 in the margin to the runner-up."""
        first, second = self._order[:2]
        return shares(self.terms[:, first] - self.terms[:, second])

    @property
    def text_part(self):
        """Part of the class text in the scores of the two classes."""
        scores = self.terms.sum(axis=0)[self._order[:2]]
        return {
            label: float(score - parts.sum())
            for score, (label, (_, parts)) in zip(
                scores, self.shots.items(), strict=True
            )
        }

    @classmethod
    def from_estimator(
        cls,
        estimator,
        query,
        X,
        y,
        *,
        sample_weight=None,
        plot=True,
        ax=None,
        **kwargs,
    ):
        """Divide the scores of one query among terms, shots and texts.

        Parameters
        ----------
        estimator : bridged classifier, FewShotSearchCV or Pipeline
            Fitted.
        query : array-like of shape (n_features,) or (1, n_features), or an image
            One embedding; for a pipeline from images, one image.
        X : array-like
            The shots that the estimator was fitted on.
        y : array-like of shape (n_samples,)
            Their labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Their weights in the fit.
        plot : bool, default=True
            Whether to plot at once.
        ax : array-like of two Axes, default=None
            As in :meth:`plot`.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        QueryExplanationDisplay

        Raises
        ------
        ValueError
            If `query` is not one row, or the estimator was not fitted on X, y and
            `sample_weight`.
        """
        classifier, embed = check_classifier(estimator, cls)
        row = np.asarray(embed([query]))
        if row.size != classifier.n_features_in_:
            raise ValueError(
                "query must be one embedding, an array of shape "
                f"({classifier.n_features_in_},), or one image for a pipeline from "
                f"images; got shape {row.shape[1:]}. Pick one: X[0], not X."
            )
        row = row.reshape(1, -1)
        cosines = np.full((3, len(classifier.classes_)), np.nan)
        for i, z in enumerate(classifier.component_logits(row)):
            if z is not None:
                cosines[i] = z[0]
        terms = score_terms(classifier.blend_, cosines)
        codes = class_codes(y, classifier.classes_, len(X))
        weight = np.ones(len(codes))
        if sample_weight is not None:
            weight = np.asarray(sample_weight, dtype=np.float64)
        # Score per unit of cosine: lambda_i in a linear blend.
        factors = np.divide(
            terms, cosines, out=np.zeros_like(terms), where=np.abs(cosines) > 0
        )
        shots, prompts = {}, {}
        for k in np.argsort(-terms.sum(axis=0), kind="stable")[:2]:
            rows = np.flatnonzero((codes == k) & (weight > 0))
            own = np.asarray(embed(_safe_indexing(X, rows)))
            _check_same_shots(classifier, own, weight[rows], k)
            label = classifier.classes_[k]
            parts = classifier.shot_parts(row, own, label, weight[rows])
            shots[label] = rows, factors[1:, k] @ parts
            head = classifier.text_head_
            has_prompts = head is not None and head.prompts is not None
            prompts[label] = head.prompts[k] if has_prompts else None
        display = cls(classifier.classes_, terms, shots, prompts)
        return display.plot(ax=ax, **kwargs) if plot else display

    def plot(self, ax=None, *, image=None, shot_images=None, n_classes=5, n_shots=3):
        """Draw scores and margin, and below them the shots and texts.

        Parameters
        ----------
        ax : array-like of two Axes, default=None
            For scores and margin alone; None makes a new figure with everything.
        image : image, default=None
            The query, in any form that :class:`~skbridge.CLIPEmbedder` takes.
        shot_images : sequence of images, default=None
            Images of the shots, in the order of X. Without them shots are shown by
            their positions in X.
        n_classes : int, default=5
            Number of classes of the highest scores to show.
        n_shots : int, default=3
            Number of shots to show for each of the two classes, by decreasing part.

        Returns
        -------
        QueryExplanationDisplay
        """
        if ax is None:
            pyplot = import_pyplot(self)
            figure = pyplot.figure(figsize=(10.5, 5.8), layout="constrained")
            above, below = figure.subfigures(2, 1, height_ratios=(1.35, 1))
            if image is None:
                ax = above.subplots(1, 2, width_ratios=(1.6, 1))
            else:
                thumbnail, *ax = above.subplots(1, 3, width_ratios=(0.9, 1.6, 1))
                _show_image(thumbnail, image, "query")
            groups = below.subfigures(1, 2, wspace=0.06)
            for group, label in zip(groups, self.shots, strict=True):
                self._draw_evidence(group, label, shot_images, n_shots)
        _, self.axes_ = make_axes(self, ax, 2)
        self.figure_ = self.axes_[0].get_figure(root=True)
        self._draw_scores(self.axes_[0], n_classes)
        self._draw_margin(self.axes_[1])
        return self

    def _draw_scores(self, ax, n_classes):
        shown = self._order[:n_classes]
        positions = np.arange(len(shown))
        terms = self.terms[:, shown]
        for i, (_, name, colour) in enumerate(_TERMS):
            # Positive and negative parts are stacked on either side of zero.
            same_side = np.where(terms[:i] * terms[i] > 0, terms[:i], 0)
            ax.barh(
                positions,
                terms[i],
                left=same_side.sum(axis=0),
                color=colour,
                label=f"{name}: {_percent(self.score_share[i])}",
            )
        ax.axvline(0, color="black", lw=0.8)
        names = [shorten(label, 26) for label in self.classes[shown]]
        ax.set_yticks(positions, names, fontsize=9)
        ax.invert_yaxis()
        ax.set_xlabel("Score, by term")
        ax.legend(
            title="Share of the winning score",
            title_fontsize=9,
            alignment="left",
            frameon=False,
            fontsize=8,
            loc="lower left",
            bbox_to_anchor=(-0.02, 1),
        )

    def _draw_margin(self, ax):
        first, second = self._order[:2]
        margin = self.terms[:, first] - self.terms[:, second]
        ax.barh(range(3), margin, color=COLOURS[:3])
        ax.axvline(0, color="black", lw=0.8)
        names = [
            f"{short} ({_percent(share)})"
            for (short, _, _), share in zip(_TERMS, self.margin_share, strict=True)
        ]
        ax.set_yticks(range(3), names, fontsize=9)
        ax.invert_yaxis()
        ax.locator_params(axis="x", nbins=5)
        ax.set_xlabel("Difference of scores, by term")
        ax.set_title(
            f"Margin {margin.sum():.3g}\nto {shorten(self.runner_up, 26)}", fontsize=10
        )

    def _draw_evidence(self, figure, label, shot_images, n_shots):
        rows, parts = self.shots[label]
        largest = np.argsort(-parts, kind="stable")[:n_shots]
        role = "predicted" if label == self.prediction else "runner-up"
        score = self.terms.sum(axis=0)[self.classes == label][0]
        figure.suptitle(
            f"{shorten(label, 26)} ({role}), score {score:.3f}", fontsize=10
        )
        text, *cells = figure.subplots(1, n_shots + 1)
        prompts = self.prompts[label]
        if prompts is None:
            written = "the class text" if self.text_part[label] else "no text"
        else:
            written = "\n\n".join(
                fill(shorten(prompt, 45), 18) for prompt in prompts[:_PROMPTS_SHOWN]
            )
            if len(prompts) > _PROMPTS_SHOWN:
                written += f"\n\n+ {len(prompts) - _PROMPTS_SHOWN} more"
        _show_text(text, written, f"text {self.text_part[label]:+.3f}")
        for cell in cells[len(largest) :]:
            cell.axis("off")
        for cell, i in zip(cells, largest, strict=False):
            title = f"{parts[i]:+.3f}"
            if shot_images is None:
                _show_text(cell, f"shot {rows[i]}", title)
            else:
                _show_image(cell, shot_images[rows[i]], title)


def _check_same_shots(classifier, X, weight, k):
    count, prototype = classifier.class_count_[k], classifier.prototypes_[k]
    found = unit(weight @ X) if len(X) else np.zeros_like(prototype)
    same = np.isclose(weight.sum(), count) and (
        np.linalg.norm(found - prototype) < _SAME_PROTOTYPE
    )
    if not same:
        raise ValueError(
            "X, y and sample_weight must be the shots that the estimator was fitted "
            f"on, but for the class {classifier.classes_.tolist()[k]!r} there are "
            f"{len(X)} of summed weight {weight.sum():g}, with another prototype "
            f"than the {count:g} of the fit. Pass what fit was given."
        )


def _percent(share):
    return "tie" if np.isnan(share) else f"{100 * share:.0f} %"


def _show_image(ax, image, title):
    ax.imshow(to_rgb(image))
    ax.set_title(title, fontsize=9)
    ax.set(xticks=[], yticks=[])


def _show_text(ax, text, title):
    ax.text(0.5, 0.5, text, fontsize=7.5, ha="center", va="center")
    ax.set_title(title, fontsize=9)
    ax.set(xticks=[], yticks=[], aspect=1)
