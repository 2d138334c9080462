"""The benchmark of label sets: it finds the coverage that is promised."""

import re

import numpy as np


def test_every_alpha_has_a_coverage(load_benchmark, tmp_path, capsys):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 24))
    y = np.repeat(np.arange(4), 40)
    X = centres[y] + 1.5 * rng.normal(size=(len(y), 24))
    np.savez(tmp_path / "whurs19_rn50.npz", features=X, labels=y)
    data = ["--features", str(tmp_path), "--data", "whurs19_rn50"]
    load_benchmark("label_sets").main([*data, "--draws", "10", "--jobs", "1"])
    out = capsys.readouterr().out
    rows = re.findall(r"\| (80|90|95) % \| (4|9|19) \| ([\d.]+) ± ([\d.]+) % \|", out)
    assert [row[:2] for row in rows] == [("80", "4"), ("90", "9"), ("95", "19")]
    for promised, _, found, error in rows:
        assert abs(float(found) - float(promised)) < 5 * float(error)
