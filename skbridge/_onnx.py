"""to_onnx: a fitted classifier as an ONNX graph, to predict without Python."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skbridge._classifiers.blend import LinearView
from skbridge._classifiers.bridged import BridgedClassifier
from skbridge._classifiers.gda import CentredView
from skbridge._rows import unit
from skbridge._version import __version__

# Old enough for runtimes from 2022 on; no newer operator is needed.
_OPSET, _IR_VERSION = 17, 8


def to_onnx(classifier):
    """Convert a fitted classifier to ONNX, from embeddings to label and probabilities.

    The graph has one input, ``X``, of shape (n_samples, n_features), and two outputs,
    ``label`` of shape (n_samples,) and ``probabilities`` of shape (n_samples,
    n_classes). They equal `predict` and `predict_proba` up to rounding. It holds matrix
    products, row lengths and a softmax, of the standard operators, in the type that the
    classifier was fitted in.

    Parameters
    ----------
    classifier : BridgedGDAClassifier, SeMoBridgeClassifier or FewShotSearchCV
        Fitted, with a linear blend. The classifiers of :mod:`skbridge.baselines` are
        refused.

    Returns
    -------
    onnx.ModelProto
        ``onnx.save(model, "classifier.onnx")`` writes it.

    Raises
    ------
    ImportError
        If the package onnx is not installed.
    TypeError
        If it is another estimator, or its labels are neither strings nor integers.
    ValueError
        If its blend is exponential, or it rejects unknown images.
    NotFittedError
        If it is not fitted.

    Notes
    -----
    The graph takes embeddings, as the classifier does: the image tower is not part of
    it. Inputs are not checked: NaN gives NaN, and lengths whose squares overflow the
    type are not rescaled, as they are in `predict`.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "to_onnx needs the package onnx, which is not installed. Install it with: "
            'pip install "skbridge[onnx]"'
        ) from error
    classifier = getattr(classifier, "best_estimator_", classifier)
    if not isinstance(classifier, BridgedClassifier):
        raise TypeError(
            "to_onnx takes a fitted BridgedGDAClassifier or SeMoBridgeClassifier, or "
            f"a FewShotSearchCV over one; got {type(classifier).__name__}. For a "
            "pipeline from images, convert its last step."
        )
    check_is_fitted(classifier)
    blend = classifier.blend_
    if blend.sharpness is not None:
        raise ValueError(
            "to_onnx takes classifiers with a linear blend, but blending is "
            f"{classifier.blending!r}. Fit with blending='linear'."
        )
    if getattr(classifier, "threshold_", None) is not None:
        raise ValueError(
            f"to_onnx does not convert reject={classifier.reject:g}: the graph would "
            "give unknown images one of the classes. Fit with reject=None, or convert "
            "reblend(), a copy that rejects nothing."
        )
    graph = _Graph(onnx, classifier.prototypes_.dtype)
    scores = None
    for weight, term in zip(blend.lambdas, classifier._terms(), strict=True):
        if term is not None and weight:
            rows = _add_view(graph, term.view, classifier._bridge)
            vectors = graph.constant(weight * term.vectors.T)
            part = graph.node("MatMul", rows, vectors)
            scores = part if scores is None else graph.node("Add", scores, part)
    scaled = graph.node("Mul", scores, graph.constant(classifier.temperature_))
    graph.node("Softmax", scaled, output="probabilities", axis=1)
    codes = graph.node("ArgMax", scores, axis=1, keepdims=0)
    labels = graph.constant(_labels(classifier.classes_), as_is=True)
    graph.node("Gather", labels, codes, output="label", axis=0)
    return graph.model(classifier.n_features_in_, classifier.classes_)


def _labels(classes):
    """Labels in a type of ONNX."""
    if classes.dtype.kind in "iu":
        return classes.astype(np.int64)
    if all(isinstance(label, str) for label in classes.tolist()):
        return classes.astype(object)
    raise TypeError(
        "to_onnx takes labels that are strings or integers, but classes_ holds "
        f"{classes.dtype}. Fit with one of these."
    )


def _add_view(graph, view, bridge):
    """Add what maps queries to the unit rows that are compared."""
    if view is unit:
        return graph.unit("X")
    if isinstance(view, CentredView):
        product = graph.node("MatMul", "X", graph.constant(view.metric))
        length = graph.node("ReduceL2", "X", axes=[1], keepdims=1)
        shift = graph.node("Mul", length, graph.constant(view.centre))
        return graph.unit(graph.node("Sub", product, shift))
    if isinstance(view, LinearView):
        return graph.unit(graph.linear("X", view.matrix, view.bias))
    # The projection has a bias, so that the length of tokens matters.
    tokens = graph.unit(graph.linear("X", bridge.inverse, bridge.bias))
    product = graph.node(
        "MatMul", tokens, graph.constant(bridge.length * bridge.projection)
    )
    return graph.unit(graph.node("Add", product, graph.constant(bridge.bias)))


class _Graph:
    """Nodes and constants of an ONNX graph, in the order in which they are added."""

    def __init__(self, onnx, dtype):
        self._onnx = onnx
        self._dtype = np.dtype(dtype)
        self._nodes, self._constants = [], []

    def constant(self, value, *, as_is=False):
        """Add a constant, in the graph's type or as it is; return its name."""
        name = f"constant_{len(self._constants)}"
        value = np.asarray(value, dtype=None if as_is else self._dtype)
        self._constants.append(self._onnx.numpy_helper.from_array(value, name))
        return name

    def node(self, operator, *inputs, output=None, **attributes):
        """Add a node; return the name of its output."""
        output = output or f"{operator}_{len(self._nodes)}"
        self._nodes.append(
            self._onnx.helper.make_node(operator, inputs, [output], **attributes)
        )
        return output

    def linear(self, rows, matrix, bias):
        """Add ``(rows - bias) matrix``; None means no bias."""
        if bias is not None:
            rows = self.node("Sub", rows, self.constant(bias))
        return self.node("MatMul", rows, self.constant(matrix))

    def unit(self, rows):
        """Add a scaling of rows to length 1, where zeros stay zeros."""
        length = self.node("ReduceL2", rows, axes=[1], keepdims=1)
        is_zero = self.node("Equal", length, self.constant(0))
        divisor = self.node("Where", is_zero, self.constant(1), length)
        return self.node("Div", rows, divisor)

    def model(self, n_features, classes):
        """Make the model, with the shapes of its input and outputs, and check it."""
        make = self._onnx.helper.make_tensor_value_info
        kind = self._onnx.helper.np_dtype_to_tensor_dtype
        real = kind(self._dtype)
        label = kind(_labels(classes).dtype)
        graph = self._onnx.helper.make_graph(
            self._nodes,
            "skbridge",
            [make("X", real, ["n_samples", n_features])],
            [
                make("label", label, ["n_samples"]),
                make("probabilities", real, ["n_samples", len(classes)]),
            ],
            self._constants,
        )
        model = self._onnx.helper.make_model(
            graph,
            producer_name="skbridge",
            producer_version=__version__,
            ir_version=_IR_VERSION,
            opset_imports=[self._onnx.helper.make_opsetid("", _OPSET)],
        )
        self._onnx.checker.check_model(model, full_check=True)
        return model
