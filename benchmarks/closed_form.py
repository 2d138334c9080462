"""Fit and predict in closed form, against the machine's floor and the official way.

1,000 classes of 16 shots and 50,000 queries, of 512 features in float32. Floors are
the necessary matrix products over the rate of a matrix product that is timed in the
same rounds; `decision_function` must also write its output, and the
time of filling a new array of its size is added. The SVD of the text projection is
cached by content, so that it is timed on its own and not in the fits, whose first
call does not count. The official way is the official code's arithmetic in
NumPy: bridge every query in two products, three products with class vectors,
exponentials of whole arrays, and a product of the second term with the one-hot
labels of its cache, which holds one mean per class. Floors count bridged embeddings in
all their columns; the second ones count only the directions of the bridge, which
give the same cosines.

    python benchmarks/closed_form.py
"""

import argparse
import subprocess
import sys

import numpy as np
from _measure import child_environment, interleaved, markdown_table, matmul
from search import make_problem

from skbridge import BridgedGDAClassifier, SeMoBridgeClassifier

BLENDS = {
    "linear, lambda_2 = 0 (default)": {},
    "linear": {"lambda_2": 0.3},
    "exponential": {"lambda_2": 0.3, "blending": "exponential"},
}
# Run in a process of its own, where NumPy's allocations are traced.
MEMORY = """
import sys, tracemalloc
import numpy as np
from search import make_problem
from skbridge import SeMoBridgeClassifier

n_queries, n_classes, n_shots, width = map(int, sys.argv[1:5])
X, y, head = make_problem(n_classes, n_shots, width)
options = dict(lambda_2=0.3, blending=sys.argv[5])
classifier = SeMoBridgeClassifier(texts=head, **options).fit(X, y)
queries = np.resize(X, (n_queries, width))
tracemalloc.start()
out = getattr(classifier, sys.argv[6])(queries)
print(tracemalloc.get_traced_memory()[1] - out.nbytes)
"""


def official_scores(classifier, shots, one_hot, queries):
    """Score as the official code does, in its three terms and whole arrays."""
    bridge = classifier._bridge
    q = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    tokens = queries @ bridge.inverse
    tokens = bridge.length * tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    bridged = tokens @ bridge.projection
    bridged /= np.linalg.norm(bridged, axis=1, keepdims=True)
    z1 = q @ classifier.text_head_.text_features.T
    z2 = bridged @ shots.T
    z3 = q @ classifier.bridged_prototypes_.T
    l1, l2, l3 = classifier.blend_.lambdas
    if classifier.blending == "linear":
        return l1 * z1 + l2 * (z2 @ one_hot) + l3 * z3
    alpha, beta, gamma = classifier.blend_.sharpness
    return (
        l1 * np.exp(-alpha * (1 - z1))
        + l2 * np.exp(-beta * (1 - z2)) @ one_hot
        + l3 * np.exp(-gamma * (1 - z3))
    )


def cell(ratio, digits=2):
    return f"{ratio:.{digits}f}"


def predict_rows(X, y, head, queries, repeats):
    """Time the blends, each beside its floor and the official way."""
    n, d = queries.shape
    n_classes = len(head)
    rows = []
    for name, options in BLENDS.items():
        classifier = SeMoBridgeClassifier(texts=head, **options).fit(X, y)
        rank = classifier._bridge.basis.shape[1]
        # As the official cache: the mean of a class's shots, one row a class.
        shots, one_hot = classifier.prototypes_, np.eye(n_classes, dtype=X.dtype)
        np.testing.assert_allclose(
            classifier.decision_function(queries[:1000]),
            official_scores(classifier, shots, one_hot, queries[:1000]),
            atol=2e-5,
        )
        product, operations = matmul(queries.dtype, (min(n, 16384), d, n_classes))

        def fill(shape=(n, n_classes)):
            np.empty(shape, dtype=np.float32).fill(0)

        def official(classifier=classifier, shots=shots, one_hot=one_hot):
            official_scores(classifier, shots, one_hot, queries)

        times = interleaved(
            {
                "product": product,
                "fill": fill,
                "predict": lambda c=classifier: c.predict(queries),
                "scores": lambda c=classifier: c.decision_function(queries),
                "official": official,
            },
            repeats,
        )
        rate = operations / times["product"].median
        # Columns that meet a query, and those that meet a bridged query.
        own, bridged = n_classes, 0
        if classifier.lambda_2:
            own *= 2 if classifier.blending == "exponential" else 1
            bridged = n_classes
        floor, least = (
            2 * n * (d * own + (width * (d + bridged) if bridged else 0)) / rate
            for width in (d, rank)
        )
        official_seconds = times["official"].median
        fresh = floor + times["fill"].median
        rows.append(
            [
                name,
                f"{1e3 * floor:.0f} ms",
                times["predict"],
                cell(times["predict"].median / floor),
                cell(times["predict"].median / least),
                times["scores"],
                cell(times["scores"].median / fresh),
                times["official"],
                cell(official_seconds / times["predict"].median, 1),
                cell(official_seconds / times["scores"].median, 1),
            ]
        )
    return rows


def fit_rows(X, y, head, repeats):
    """Time the fits beside their floors."""
    n, d = X.shape
    d_t, n_classes = head.projection.shape[0], len(head)
    projection = head.projection.astype(np.float64)
    single, operations = matmul(X.dtype, (n, d, d_t))
    double, double_operations = matmul(np.float64, (n, d, d_t))
    calls = {
        "single": single,
        "double": double,
        "copy": lambda: X.copy(),
        "SVD": lambda: np.linalg.svd(projection),
    }
    for kind in (SeMoBridgeClassifier, BridgedGDAClassifier):
        name, classifier = kind.__name__, kind(head)
        calls[name] = lambda c=classifier: c.fit(X, y)
    rank = SeMoBridgeClassifier(texts=head).fit(X, y)._bridge.basis.shape[1]
    scatter = projection.T @ projection + np.eye(d)
    calls["factor"] = lambda: np.linalg.inv(np.linalg.cholesky(scatter))
    times = interleaved(calls, repeats)
    rate = operations / times["single"].median
    double_rate = double_operations / times["double"].median

    def semobridge_floor(width):
        # Lengths of the bridged shots, and the class means through W+ and W.
        return (2 * n * d * width + 2 * n_classes * 2 * d * d_t) / rate

    def gda_floor(width):
        # The class sums and the second moment of the shots, that of the means (both
        # are symmetric), the projection onto the bridge, and the means in the metric.
        doubles = (n + n_classes) * d**2 + width * d**2 + 3 * 2 * n_classes * d**2
        return doubles / double_rate + times["factor"].median

    rows = []
    for name, floor_of, all_columns in (
        ("SeMoBridgeClassifier", semobridge_floor, d_t),
        ("BridgedGDAClassifier", gda_floor, d),
    ):
        row, seconds = [name], times[name].median
        for width in (all_columns, rank):
            floor = floor_of(width) + times["copy"].median / 2
            row += [f"{1e3 * floor:.0f} ms", cell(seconds / floor)]
        rows.append([*row[:2], times[name], *row[2:]])
    return rows, times["SVD"]


def memory_rows(n_queries, n_classes, n_shots, width):
    """Measure the peak memory above the output, each in a process of its own."""
    rows = []
    for blending in ("linear", "exponential"):
        for method in ("predict", "decision_function", "predict_proba"):
            # The output of a million rows of scores itself is 4 GB.
            n = n_queries if method == "predict" else n_queries // 4
            arguments = [n, n_classes, n_shots, width, blending, method]
            result = subprocess.run(
                [sys.executable, "-c", MEMORY, *map(str, arguments)],
                check=True,
                capture_output=True,
                text=True,
                env=child_environment(),
            )
            megabytes = int(result.stdout) / 1e6
            rows.append([blending, method, f"{n:,}", f"{megabytes:.0f} MB"])
    return rows


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=50_000)
    parser.add_argument("--memory-queries", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(argv)
    sizes = options.classes, options.shots, options.width
    X, y, head = make_problem(*sizes)
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(options.queries, options.width)).astype(np.float32)

    print("## Closed form: fit and predict\n")
    print(
        f"{sizes[0]:,} classes x {sizes[1]} shots, {sizes[2]} features, "
        f"{options.queries:,} queries, float32; medians of {options.repeats} rounds, "
        "with their range. The floor is the number of multiplications over the rate of "
        "a matrix product in the same rounds.\n"
    )
    rows, svd = fit_rows(X, y, head, options.repeats)
    header = ["fit", "floor", "time", "time / floor"]
    header += ["floor, directions of the bridge alone", "time / that"]
    print(markdown_table(header, rows))
    print(f"\nThe SVD of the projection, once for all fits: {svd}.\n")
    header = ["predict, blending", "floor", "`predict`", "/ floor"]
    header += ["/ floor, directions of the bridge alone"]
    header += ["`decision_function`", "/ floor", "official way"]
    header += ["official / `predict`", "official / `decision_function`"]
    rows = predict_rows(X, y, head, queries, options.repeats)
    print(markdown_table(header, rows))
    print("\nPeak memory above the output:\n")
    rows = memory_rows(options.memory_queries, *sizes)
    print(markdown_table(["blending", "method", "queries", "memory"], rows))


if __name__ == "__main__":
    main()
