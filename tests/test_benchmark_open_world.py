"""The benchmark of unlabelled images and unknown classes on generated features."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A folder with two data sets, one of them with texts."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 24))

    def images(n):
        y = np.repeat(np.arange(4), n)
        return centres[y] + 1.5 * rng.normal(size=(len(y), 24)), y

    drawn = dict(zip(("support", "support_labels"), images(6), strict=True))
    drawn |= dict(zip(("test", "test_labels"), images(20), strict=True))
    np.savez(folder / "dtd.npz", text_features=centres, **drawn)
    X, y = images(40)
    np.savez(folder / "whurs19_rn50.npz", features=X, labels=y)
    return folder


def test_every_method_has_a_row_and_records_are_used_again(
    features, load_benchmark, tmp_path, capsys
):
    output, records = tmp_path / "open_world.md", tmp_path / "records.jsonl"
    options = ["--features", str(features), "--data", "dtd", "whurs19_rn50"]
    options += ["--shots", "2", "8", "--seeds", "2", "--jobs", "1"]
    options += ["--records", str(records), "--output", str(output)]
    benchmark = load_benchmark("open_world")
    benchmark.main(options)
    report = output.read_text(encoding="utf-8")
    assert report == capsys.readouterr().out
    for method in benchmark.GAINS:
        # With texts and without on either half, and each data set.
        assert report.count(f"| {method} |") == 6
    # dtd has not so many shots.
    assert "| dtd | TransCLIP | +" in report or "| dtd | TransCLIP | -" in report
    found = [json.loads(line) for line in records.read_text().splitlines()]
    assert any(line["record"] is None for line in found)
    benchmark.main(options)
    assert output.read_text(encoding="utf-8") == report
    assert len(records.read_text().splitlines()) == len(found)


def test_gains_are_over_the_fit_without_unlabelled_images(features, load_benchmark):
    benchmark = load_benchmark("open_world")
    records = {
        ("dtd", 2, 0, method): benchmark.quietly(
            benchmark.unlabelled, features, "dtd", 2, 0, method
        )
        for method in ("before", "BridgedGDA", "TransCLIP")
    }
    for half in ("own", "other"):
        (cell,) = benchmark.unlabelled_cells(records, half)["dtd", 2]
        before, after = (records["dtd", 2, 0, m][half] for m in ("before", "TransCLIP"))
        assert cell["TransCLIP"] == after - before
        assert cell["before"] == before
    problem = benchmark.load_problem(features, "dtd", 2, 0)
    halves = [records["dtd", 2, 0, "before"][half] for half in ("own", "other")]
    fitted = benchmark.before(problem, None, None)
    assert np.mean(halves) == pytest.approx(
        benchmark.accuracy(fitted.predict(problem.queries), problem.targets)
    )
