"""The benchmark of many processes: every way has a rate, and the plan follows."""

import re

import pytest


def test_every_way_has_a_rate(load_benchmark, capsys):
    pytest.importorskip("ray")
    load_benchmark("scale").main(
        ["--n-images", "200", "--shard-size", "20", "--side", "64", "--n-classes", "5"]
    )
    out = capsys.readouterr().out
    rates = re.findall(
        r"^\| (?:CLIP|embed|the same).+ \| ([\d,.]+) \| [\d.]+ \|$", out, re.M
    )
    assert len(rates) == 5
    assert min(float(rate.replace(",", "")) for rate in rates) > 0
    assert "2 actors reach " in out
    assert len(re.findall(r"^\| (?:FewShot|Grid)SearchCV.* \|$", out, re.M)) >= 5
    assert "| 1,000,000,000 | 8 GPUs | 8,488 | 32.7 | 262 | 100,000 |" in out
