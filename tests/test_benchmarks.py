"""The accuracy benchmark on generated features: every layout, every table."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "accuracy.py"
METHODS = [
    "zero-shot CLIP",
    "GDA",
    "LogisticRegressionCV",
    "LogisticRegressionCV, calibrated",
    "SeMoBridge, paper plain",
    "BridgedGDA",
    "BridgedGDA, searched",
    "gda, text_subspace",
    "gda, pseudo_inverse",
    "gda, identity",
    "mean, cut 0.25",
]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("accuracy_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A folder with a data set of each layout, a text bank and a projection."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    n_classes, width = 4, 24
    texts = rng.normal(size=(n_classes, width))

    def images(n):
        y = np.repeat(np.arange(n_classes), n)
        return texts[y] + 1.5 * rng.normal(size=(len(y), width)), y

    test, test_labels = images(10)
    fixed = {"test": test, "test_labels": test_labels}
    drawn = fixed | dict(zip(("support", "support_labels"), images(6), strict=True))
    for k in (1, 2):
        fixed |= dict(zip((f"shots_{k}", f"shot_labels_{k}"), images(k), strict=True))
    np.savez(folder / "fixed.npz", **fixed)
    np.savez(folder / "drawn.npz", text_features=texts, **drawn)
    X, y = images(20)
    np.savez(folder / "whole_tower.npz", features=X, labels=y)
    np.save(folder / "tower_text_projection.npy", rng.normal(size=(width, width)))
    np.savez(folder / "text_bank.npz", text_features=rng.normal(size=(80, width)))
    return folder


def test_benchmark_reports_every_layout_and_resumes(
    benchmark, features, tmp_path, capsys
):
    output, records = tmp_path / "results.md", tmp_path / "records.jsonl"
    arguments = ["--features", str(features), "--seeds", "2", "--jobs", "1"]
    arguments += ["--data", "fixed", "drawn", "whole_tower", "--shots", "1", "2"]
    arguments += ["--records", str(records), "--output", str(output)]
    arguments += ["--methods", *METHODS]
    benchmark.main(arguments)
    text = output.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    for title in ("Top-1 accuracy", "Probabilities", "Bridges and cuts", "CPU seconds"):
        assert title in text
    found = [json.loads(line) for line in records.read_text().splitlines()]
    runs = {(r["data"], r["shots"], r["seed"], r["method"]) for r in found}
    assert len(runs) == len(found)
    # Shots that are given make one draw; without texts there is no zero-shot.
    assert ("fixed", 1, 1, "GDA") not in runs
    assert ("drawn", 1, 1, "GDA") in runs
    assert {r[0] for r in runs if r[3] == "zero-shot CLIP"} == {"drawn"}
    assert {r[0] for r in runs if r[3] == "gda, pseudo_inverse"} == {"whole_tower"}
    assert {r[1] for r in runs if r[3].endswith("calibrated")} == {2}
    benchmark.main(arguments)
    assert output.read_text(encoding="utf-8") == text
    assert len(records.read_text().splitlines()) == len(found)


def test_shots_of_a_seed_grow_and_never_reach_the_queries(benchmark, features):
    few = benchmark.load_problem(features, "whole_tower", 2, 1)
    more = benchmark.load_problem(features, "whole_tower", 4, 1)
    assert {row.tobytes() for row in few.X} < {row.tobytes() for row in more.X}
    np.testing.assert_array_equal(few.queries, more.queries)
    queries = {row.tobytes() for row in more.queries}
    assert not queries & {row.tobytes() for row in more.X}
    assert benchmark.load_problem(features, "whole_tower", 17, 1) is None


def test_calibration_error_and_log_loss_are_those_of_their_definitions(benchmark):
    proba = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.0, 1.0]])
    codes = np.array([0, 1, 1, 1])
    ece = benchmark.expected_calibration_error(proba, codes)
    assert ece == pytest.approx((2 * abs(0.9 - 0.5) + abs(0.6 - 1)) / 4)
    loss = benchmark.log_loss(proba, codes)
    assert loss == pytest.approx(-np.log([0.9, 0.1, 0.6, 1.0]).mean())


def test_missing_data_set_is_named(benchmark, features, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse(["--features", str(features), "--data", "cars"])
    assert "has no cars" in capsys.readouterr().err
