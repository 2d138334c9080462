"""The benchmark of the page of skbridge report, where there is a browser."""

import shutil

import pytest


def test_every_page_has_a_row_per_speed(load_benchmark, capsys):
    pytest.importorskip("playwright.sync_api")
    benchmark = load_benchmark("report_page")
    if not any(map(shutil.which, benchmark.BROWSERS)):
        pytest.skip("needs Chrome or Chromium")
    benchmark.main(["--photographs", "12", "40", "--seconds", "0.3"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()]
    rows = [[cell.strip() for cell in row] for row in rows if len(row) == 9][2:]
    assert [row[0] for row in rows] == [
        n for n in ("12", "40", "nothing") for _ in "ab"
    ]
    assert [row[4] for row in rows] == ["1,500", "6,000"] * 3
    # Tiles are work, and nothing is not.
    assert float(rows[3][6]) > float(rows[5][6]) > 0
