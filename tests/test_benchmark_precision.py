"""The benchmark of precisions on a CPU: every way embeds the same images alike."""

import re

import pytest


@pytest.fixture(scope="module")
def benchmark(load_benchmark):
    return load_benchmark("precision")


def test_every_way_has_a_ratio_and_a_cosine(benchmark, tmp_path, capsys):
    output = tmp_path / "report.md"
    quick = ["--models", "skbridge-tiny", "--n-images", "2", "--rounds", "1"]
    benchmark.main([*quick, "--files", "", "--output", str(output)])
    text = output.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    rows = re.findall(
        r"^\| (.+) \| [\d.]+ \| [\d.]+ \(.*\) \| ([\d.]+) \|$", text, re.M
    )
    assert len(rows) + text.count("Not run:") >= 9
    assert rows[0] == (benchmark.EAGER, "1.000000")
    assert min(float(cosine) for _, cosine in rows) > 0.99


def test_parts_that_stay_in_float32_do(benchmark):
    import torch

    layers = torch.nn.Sequential(
        torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)
    ).bfloat16()
    benchmark.in_float32(layers[1])
    assert layers[1].weight.dtype == torch.float32
    assert layers(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
