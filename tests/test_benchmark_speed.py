"""Each speed benchmark on a small problem: its structure and its exactness.

How fast things are depends on the machine and is not asserted here.
"""

import numpy as np
import pytest


def rows_of(text, first):
    """Cells of the rows of a report that start with `first`."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {first}")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_closed_form_reports_fit_predict_and_memory(load_benchmark, capsys):
    small = ["--classes", "8", "--shots", "2", "--width", "32", "--queries", "40"]
    load_benchmark("closed_form").main(
        [*small, "--memory-queries", "2000", "--repeats", "1"]
    )
    report = capsys.readouterr().out
    assert report.startswith("## Closed form")
    assert len(rows_of(report, "SeMoBridgeClassifier")) == 1
    assert len(rows_of(report, "BridgedGDAClassifier")) == 1
    assert len(rows_of(report, "linear")) == 2 + 3
    assert len(rows_of(report, "exponential")) == 1 + 3
    for *_, queries, memory in rows_of(report, "exponential")[1:]:
        assert queries in ("2,000", "500")
        assert memory.endswith(" MB")


@pytest.mark.parametrize("blending", ["linear", "exponential"])
def test_the_official_way_gives_the_same_scores(load_benchmark, blending):
    closed_form = load_benchmark("closed_form")
    X, y, head = load_benchmark("search").make_problem(6, 3, 24)
    X = X.astype(np.float64)
    classifier = closed_form.SeMoBridgeClassifier(
        texts=head, lambda_2=0.3, blending=blending
    ).fit(X, y)
    scores = closed_form.official_scores(
        classifier, classifier.prototypes_, np.eye(6), X
    )
    np.testing.assert_allclose(classifier.decision_function(X), scores, atol=1e-12)


def test_startup_compares_new_interpreters(load_benchmark, capsys):
    load_benchmark("startup").main(["--classes", "4", "--repeats", "1"])
    report = capsys.readouterr().out
    assert rows_of(report, "import sklearn.base")[0][-1] == "1.00"
    # The script fails where the prediction imports torch.
    assert len(rows_of(report, "load and predict")) == 1


def test_one_report_holds_every_section_and_names_what_failed(
    load_benchmark, monkeypatch, tmp_path, capsys
):
    run_all = load_benchmark("run_all")
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "good.py").write_text("print('## Good')")
    (folder / "bad.py").write_text("raise ValueError('no luck')")
    (folder / "slow.py").write_text("print('## Slow')\nimport time\ntime.sleep(60)")
    echo = "import sys\nprint('## Search', *sys.argv[1:3])"
    (folder / "search.py").write_text(echo)
    monkeypatch.setattr(run_all, "FOLDER", folder)
    output = tmp_path / "report.md"
    with pytest.raises(SystemExit, match="Failed: bad"):
        run_all.main(["--scripts", "bad", "good", "--output", str(output)])
    report = output.read_text(encoding="utf-8")
    assert report in capsys.readouterr().out
    assert "Machine: " in report
    assert "## bad\n\nFailed: ValueError: no luck" in report
    assert "## Good" in report
    run_all.main(["--quick", "--scripts", "search"])
    assert "## Search --classes 6\n" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="Failed: slow"):
        run_all.main(["--scripts", "slow", "--minutes", "0.03"])
    report = capsys.readouterr().out
    assert "## Slow\n\nFailed: stopped at the end of the time" in report
    with pytest.raises(SystemExit, match="no benchmark 'absent'"):
        run_all.main(["--scripts", "absent"])


def test_search_compares_the_same_scores(load_benchmark, monkeypatch, capsys):
    search = load_benchmark("search")
    space = {"bridge_rank": [4, 16], "lambda_3": [0.1, 1.0]}
    monkeypatch.setattr(search, "SPACE", space)
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    sizes = ["--classes", "6", "--shots", "3", "--width", "32"]
    search.main([*sizes, "--reference-settings", "4", "--trials", "2"])
    rows = rows_of(capsys.readouterr().out, "6 x 3")
    assert rows[0][1:3] == ["FewShotSearchCV", "all"]
    assert rows[1][1].startswith("GridSearchCV (0 scores differ")
    # A rival that is missing is not left out silently.
    assert rows[2][1:3] == ["Optuna TPE, 1,000 trials", "not installed"]
