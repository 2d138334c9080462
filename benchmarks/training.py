"""SeMoBridge-T: time to the recipe's loss, and to the best held-out accuracy.

A plain PyTorch loop of the official recipe (automatic differentiation,
``torch.optim.AdamW``, 5,000 steps) against ``solver="adamw"``, which takes the same
steps, ``solver="fast"`` run to its end, and the default, ``solver="fast"`` with early
stopping. Classes x shots of 37 x 4, 100 x 16 and 1,000 x 16, d = 512, generated: class
texts, images around them behind a modality gap, W with a spectrum like CLIP's.

Run ``python benchmarks/training.py``; it takes about ten minutes. The plain loop runs
all its steps at the two smaller sizes; at 1,000 x 16 its time is 5,000 times the median
of 50 steps of the same run, and its final loss is that of one long run, ``python
benchmarks/training.py --long`` (an hour; ``solver="adamw"``, the same numbers), kept in
``recipe_loss.json``. ``--features FOLDER`` compares accuracy on real features.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _measure import machine, markdown_table, versions
from torch.nn.functional import cross_entropy, normalize

from skbridge import SeMoBridgeClassifier, TextHead
from skbridge._rows import unit

SIZES = [(37, 4), (100, 16), (1000, 16)]
RECIPE_STEPS = 5000
TIMED_STEPS = 50
TURN_SECONDS = 2
# Steps after which loss and accuracy are shown; the later ones of the recipe only
# where the plain loop takes all its steps.
POINTS, LATER = [10, 30, 100], [300, 1000]
# Up to so many shots the plain loop takes all its steps.
MEASURED_IN_FULL = 1600
SCATTER = 1.5
# Of an H200 by its data sheet: float32 operations and bytes a second.
GPU_OPERATIONS, GPU_BYTES = 67e12, 4.8e12
LONG_RUN = Path(__file__).with_name("recipe_loss.json")


def generated(n_classes, n_shots, width=512, n_queries=2000, seed=0):
    """A text head, shots and queries, float32.

    Classes and what scatters about them share a few strong directions and many weak
    ones, as in CLIP's space; texts and images lie apart.
    """
    rng = np.random.default_rng(seed)
    left, right, axes = (
        np.linalg.qr(rng.normal(size=(width, width)))[0] for _ in range(3)
    )
    W = left * np.geomspace(3, 0.02, width) @ right
    spread = np.arange(1, width + 1) ** -0.5
    axes = spread[:, None] / np.linalg.norm(spread) * axes

    def scattered(n_rows):
        return rng.normal(size=(n_rows, width)) @ axes

    text_gap, image_gap = unit(rng.normal(size=(2, width)))
    centres = scattered(n_classes)
    texts = unit(1.5 * text_gap + centres + 1.2 * scattered(n_classes))

    def images(y):
        return unit(1.5 * image_gap + centres[y] + SCATTER * scattered(len(y)))

    y = np.repeat(np.arange(n_classes), n_shots)
    targets = rng.integers(0, n_classes, size=n_queries)
    head = TextHead.from_arrays(
        [f"class {k:04}" for k in range(n_classes)],
        eos=(texts @ np.linalg.inv(W)).astype(np.float32),
        projection=W.astype(np.float32),
    )
    X, queries = (images(labels).astype(np.float32) for labels in (y, targets))
    return head, X, y, queries, targets


class PlainLoop:
    """The recipe as one would write it."""

    def __init__(self, head, X, y, scale=100.0):
        closed = SeMoBridgeClassifier(texts=head).fit(X, names(head, y))
        tensors = (X, closed._bridge.projection, closed._bridge.eos_unit)
        self.X, self.W, self.E = map(torch.tensor, tensors)
        self.T = torch.tensor(head.text_features)
        self.y, self.classes = torch.from_numpy(y), torch.arange(len(head))
        self.count = torch.bincount(self.y)[:, None]
        self.length, self.scale = head.eos_length, scale
        self.inverse = torch.tensor(closed.inverse_projection_, requires_grad=True)
        self.class_bias = torch.zeros(len(head), len(self.W), requires_grad=True)
        self.optimizer = torch.optim.AdamW([self.inverse, self.class_bias], lr=1.5e-4)
        self.n_steps = 0

    def class_mean(self, rows):
        zeros = torch.zeros(len(self.count), rows.shape[1])
        return zeros.index_add(0, self.y, rows) / self.count

    def loss(self):
        u = self.X @ self.inverse + self.class_bias[self.y]
        tokens = self.length * normalize(u, dim=1)
        joint = tokens @ self.W
        prototypes = normalize(self.class_mean(joint), dim=1)
        image = cross_entropy(
            self.scale * normalize(self.X, dim=1) @ prototypes.T, self.y
        )
        mean_tokens = normalize(self.class_mean(tokens), dim=1)
        text_eos = cross_entropy(mean_tokens @ self.E.T, self.classes)
        text_joint = cross_entropy(prototypes @ self.T.T, self.classes)
        consistency = cross_entropy(normalize(joint, dim=1) @ prototypes.T, self.y)
        norms = self.class_bias.norm(dim=1)
        spread = ((norms - norms.mean()) ** 2).mean()
        text = (text_eos + text_joint) / 2
        return 0.5 * image + 0.5 * text + 0.1 * consistency + 0.1 * spread

    def step(self):
        warm = 1e-5 if self.n_steps == 0 else 1.5e-4 * min(self.n_steps / 500, 1)
        self.optimizer.param_groups[0]["lr"] = warm
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        self.n_steps += 1
        return loss.item()


def names(head, y):
    return np.array(head.classes)[y]


def trained(head, **params):
    return SeMoBridgeClassifier(texts=head, mode="trained", device="cpu", **params)


def seconds_of(call):
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def step_times(loop, head, X, y, n_steps):
    """Seconds of a step of the plain loop and of ``solver="adamw"``, in turns.

    The fit's fixed part is what a fit of one step takes; small steps are taken so
    many more of that they can be told from it.
    """
    labels = names(head, y)
    first = min(seconds_of(loop.step)[0] for _ in range(3))
    turn = max(n_steps // 5, round(TURN_SECONDS / first))
    plain, adamw = [], []
    for _ in range(5):
        plain += [seconds_of(loop.step)[0] for _ in range(turn)]
        times = [
            seconds_of(
                lambda n=n: trained(head, solver="adamw", max_iter=n).fit(X, labels)
            )[0]
            for n in (1, turn + 1)
        ]
        adamw.append((times[1] - times[0]) / turn)
    return plain, adamw


def gpu_floor(n_classes, n_rows, n_evaluations, width=512):
    """Seconds of L-BFGS on a GPU, by count: of its products, and of its passes.

    With so many shots an evaluation has two products of them with d x d matrices, four
    with the classes, four of class vectors with d x d matrices, six between classes or
    texts and two between d x d matrices, and passes some 20 times over arrays of
    shots x d and of shots x classes.
    """
    products = n_rows * width * (2 * width + 4 * n_classes)
    products += width * n_classes * (4 * width + 6 * n_classes) + 2 * width**3
    passes = 4 * 20 * n_rows * (width + n_classes)
    return (
        n_evaluations * 2 * products / GPU_OPERATIONS,
        n_evaluations * passes / GPU_BYTES,
    )


def measure(n_classes, n_shots, *, all_steps, n_queries=2000, recipe_steps):
    """Rows of the tables for one size."""
    head, X, y, queries, targets = generated(n_classes, n_shots, n_queries=n_queries)
    labels, targets = names(head, y), names(head, targets)
    size = f"{n_classes} x {n_shots}"
    plain, adamw = step_times(PlainLoop(head, X, y), head, X, y, TIMED_STEPS)
    step = np.median(plain)
    steps_row = [
        size,
        *(
            f"{1e3 * np.median(t):.2f} ({1e3 * min(t):.2f} to {1e3 * max(t):.2f})"
            for t in (plain, adamw)
        ),
        f"{step / np.median(adamw):.2f}",
    ]

    def fit(name, **params):
        classifier = trained(head, **params)
        seconds, _ = seconds_of(lambda: classifier.fit(X, labels))
        curve = classifier.loss_curve_
        # Early stopping may take no step at all.
        loss = curve[-1] if len(curve) else np.nan
        score = classifier.score(queries, targets)
        return name, len(curve), seconds, loss, score

    closed = SeMoBridgeClassifier(texts=head).fit(X, labels)
    points = [n for n in POINTS + all_steps * LATER if n < recipe_steps]
    recipe = [fit("adamw", solver="adamw", max_iter=n) for n in points]
    lbfgs = [
        fit("fast, early_stopping=False", early_stopping=False, max_iter=n)
        for n in (*POINTS, None)
    ]
    default = fit("fast, early stopping (default)")
    ends = [lbfgs[-1], default]
    if all_steps:
        loop, losses = PlainLoop(head, X, y), []
        plain_seconds, _ = seconds_of(
            lambda: losses.extend(loop.step() for _ in range(recipe_steps))
        )
        recipe_loss, how = losses[-1], f"{recipe_steps:,} steps"
        recipe.append(fit("adamw", solver="adamw", max_iter=recipe_steps))
        recipe_accuracy = recipe[-1][-1]
        ends.insert(0, recipe[-1])
    else:
        plain_seconds, how = step * recipe_steps, f"{TIMED_STEPS} steps, extrapolated"
        long_run = json.loads(LONG_RUN.read_text()) if LONG_RUN.exists() else {}
        long_run = long_run.get(size, {})
        recipe_loss = long_run.get("loss", np.nan)
        recipe_accuracy = long_run.get("accuracy", np.nan)
    known = recipe_loss > 0
    table = [
        [
            size,
            "closed form",
            "",
            "",
            "",
            f"{100 * closed.score(queries, targets):.2f}",
        ],
        [
            size,
            f"plain loop, {how}",
            f"{plain_seconds:.2f}",
            "1",
            f"{recipe_loss:.4f}" if known else "not run",
            f"{100 * recipe_accuracy:.2f}" if known else "not run",
        ],
    ]
    for name, n_steps, seconds, loss, score in ends:
        share = f"1/{plain_seconds / seconds:.0f}"
        against = f"{loss:.4f} ({loss / recipe_loss:.4f})" if known else f"{loss:.4f}"
        cells = f"{seconds:.2f}", share, against, f"{100 * score:.2f}"
        table.append([size, f"{name}: {n_steps} steps", *cells])
    path = [
        [size, name, n_steps, f"{seconds:.2f}", f"{loss:.4f}", f"{100 * score:.2f}"]
        for name, n_steps, seconds, loss, score in [*recipe, *lbfgs, default]
    ]
    n_evaluations = lbfgs[-1][1]
    return steps_row, table, path, n_evaluations


def long_run(n_classes, n_shots, steps):
    """The recipe's final loss and accuracy at a size too slow for the benchmark."""
    head, X, y, queries, targets = generated(n_classes, n_shots)
    recipe = trained(head, solver="adamw", max_iter=steps).fit(X, names(head, y))
    found = {
        f"{n_classes} x {n_shots}": {
            "steps": steps,
            "loss": float(recipe.loss_curve_[-1]),
            "accuracy": recipe.score(queries, names(head, targets)),
        }
    }
    LONG_RUN.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


REAL = [
    ("dtd", 37, 4),
    ("dtd", 47, 1),
    ("dtd", 47, 16),
    ("stanford_cars", 100, 16),
    ("stanford_cars", 196, 1),
    ("stanford_cars", 196, 4),
    ("oxford_flowers", 102, 4),
    ("fgvc_vit_b_16", 100, 4),
    ("caltech101", 101, 4),
]


def real(folder, recipe_steps):
    """Accuracy on real features: closed form, the recipe and the default solver."""
    from accuracy import bridged, load_problem

    rows = []
    for name, n_classes, n_shots in REAL:
        problem = load_problem(folder, name, n_shots, 0)
        classes = np.unique(problem.y)[:n_classes]
        kept, asked = np.isin(problem.y, classes), np.isin(problem.targets, classes)
        row = [name, f"{len(classes)} x {n_shots}"]
        times = []
        for params in (
            {},
            {"mode": "trained", "solver": "adamw", "max_iter": recipe_steps},
            {"mode": "trained"},
        ):
            classifier = bridged(**params)(problem)
            seconds, _ = seconds_of(
                partial(classifier.fit, problem.X[kept], problem.y[kept])
            )
            times.append(seconds)
            score = classifier.score(problem.queries[asked], problem.targets[asked])
            row.append(f"{100 * score:.2f}")
        rows.append([*row, str(classifier.n_iter_), f"1/{times[1] / times[2]:.0f}"])
        print(rows[-1], flush=True)
    print()
    means = [np.mean([float(row[i]) for row in rows]) for i in (2, 3, 4)]
    rows.append(["mean", "", *(f"{mean:.2f}" for mean in means), "", ""])
    header = ["data set", "classes x shots", "closed form", "recipe", "default"]
    print(markdown_table([*header, "steps", "of adamw's time"], rows))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=[f"{c}x{k}" for c, k in SIZES])
    parser.add_argument("--recipe-steps", type=int, default=RECIPE_STEPS)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--features", type=Path)
    options = parser.parse_args(argv)
    if options.long:
        return long_run(*SIZES[-1], options.recipe_steps)
    if options.features:
        return real(options.features, options.recipe_steps)
    steps, table, path = [], [], []
    for text in options.sizes:
        n_classes, n_shots = map(int, text.split("x"))
        step_row, rows, points, n_evaluations = measure(
            n_classes,
            n_shots,
            all_steps=n_classes * n_shots <= MEASURED_IN_FULL,
            recipe_steps=options.recipe_steps,
        )
        steps.append(step_row)
        table += rows
        path += points
    print("## SeMoBridge-T training\n")
    print(f"{machine()}. {versions()}. {torch.get_num_threads()} torch threads.\n")
    print("Milliseconds per step, median (range):\n")
    header = ["classes x shots", "plain loop", 'solver="adamw"', "times faster"]
    print(markdown_table(header, steps))
    print("\nWhole fits; the loss in brackets is that over the recipe's:\n")
    header = ["classes x shots", "solver", "seconds", "of the plain loop's time"]
    print(markdown_table([*header, "final loss", "held-out accuracy, %"], table))
    print("\nLoss and held-out accuracy against time, each line a fit of its own:\n")
    header = ["classes x shots", "solver", "steps", "seconds", "loss"]
    print(markdown_table([*header, "held-out accuracy, %"], path))
    n_rows = 2 * n_classes * n_shots
    products, passes = gpu_floor(n_classes, n_rows, n_evaluations)
    print(
        f"\nBy count, not measured: {n_evaluations} evaluations of L-BFGS at "
        f"{n_classes:,} classes and {n_rows:,} rows are {products:.2f} s of products "
        f"and {passes:.2f} s of memory passes at the rates of an H200's data sheet."
    )


if __name__ == "__main__":
    main()
