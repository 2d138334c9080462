"""The benchmark for GPUs, small and on the CPU."""


def test_every_row_has_a_figure(load_benchmark, capsys):
    load_benchmark("gpu").main(["--small", "--device", "cpu"])
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| ")
    ]
    assert rows[0] == ["what", "figure", "beside it"]
    figures = {what: figure for what, figure, _ in rows[2:]}
    assert all(figures.values())
    assert figures["pickle loaded without a GPU"] >= "cosine 0.9999"
    assert figures["the same labels, 20 x 4"] == "100.00 %"
    assert float(figures["loss after 2 steps, relative difference"]) == 0
