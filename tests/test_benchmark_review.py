"""The benchmark of skbridge.review on generated features."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A folder with a data set of each layout that has a pool."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(4, 24))

    def images(n):
        y = np.repeat(np.arange(4), n)
        return texts[y] + 1.5 * rng.normal(size=(len(y), 24)), y

    drawn = dict(zip(("support", "support_labels"), images(20), strict=True))
    drawn |= dict(zip(("test", "test_labels"), images(20), strict=True))
    np.savez(folder / "dtd.npz", text_features=texts, **drawn)
    X, y = images(40)
    np.savez(folder / "whurs19_rn50.npz", features=X, labels=np.array(list("abcd"))[y])
    return folder


def test_every_data_set_has_a_row_in_every_table(
    features, load_benchmark, tmp_path, capsys
):
    output = tmp_path / "review.md"
    options = ["--features", str(features), "--draws", "1", "--shots", "8"]
    options += ["--jobs", "1", "--output", str(output)]
    load_benchmark("review").main(options)
    report = output.read_text(encoding="utf-8")
    assert report == capsys.readouterr().out
    assert report.count("| dtd |") == report.count("| whurs19_rn50 |") == 4
    assert "imagenet" not in report


def test_labels_are_counted_on_the_line_between_two_rounds(load_benchmark):
    benchmark = load_benchmark("review")
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 50)
    X = np.where(y[:, None], 1.0, -1.0) + 2 * rng.normal(size=(100, 8))
    problem = X, y, X, y

    def in_order(classifier, rest, known, n):
        return np.arange(n)

    def accuracy(n):
        return benchmark.make_classifier(None).fit(X[:n], y[:n]).score(X, y)

    goal = accuracy(12)
    steps = [2]
    while accuracy(steps[-1]) < goal:
        steps.append(steps[-1] + 4)
    needed = benchmark.labels_to_goal(problem, None, goal, [0, 1], in_order, 4)
    assert steps[-2] < needed <= steps[-1]


def test_options_are_chosen_on_the_other_data_sets(load_benchmark):
    chosen = load_benchmark("review").chosen_elsewhere
    figures = {"a": {"x": 1, "y": 9}, "b": {"x": 5, "y": 4}, "c": {"x": 5, "y": 4}}
    assert chosen(figures, max) == {"a": "x", "b": "y", "c": "y"}
    assert chosen(figures, min) == {"a": "y", "b": "x", "c": "x"}


def test_flips_change_as_many_labels_as_asked_for(load_benchmark):
    benchmark = load_benchmark("review")
    y = np.repeat(np.arange(5), 20)
    flipped, wrong = benchmark.flip_labels(y, 0.1, np.random.default_rng(0))
    assert wrong.sum() == 10
    np.testing.assert_array_equal(flipped != y, wrong)
    assert benchmark.precision(np.where(wrong, -1.0, 0.0), wrong) == 1
