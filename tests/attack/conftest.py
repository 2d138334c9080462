"""Attacks: short in ``make test``, long in ``make attack``, with a table of figures."""

import os

import numpy as np
import pytest

IS_LONG = bool(os.environ.get("SKBRIDGE_ATTACK"))


@pytest.fixture
def times():
    """How often to attack: the second number in the long form."""
    return lambda short, long: long if IS_LONG else short


@pytest.fixture
def rng():
    """Random numbers, of another seed with SKBRIDGE_ATTACK=SEED."""
    seed = os.environ.get("SKBRIDGE_ATTACK", "0")
    return np.random.default_rng(int(seed) if seed.isdigit() else 0)


@pytest.fixture
def report(record_property):
    """Add a row to the table: what was tried, how often, and what came of it."""

    def add(attack, n_tried, **outcomes):
        said = ", ".join(
            f"{count:,} {name.replace('_', ' ')}" for name, count in outcomes.items()
        )
        record_property("attack", (attack, f"{n_tried:,}", said))

    return add


def pytest_terminal_summary(terminalreporter):
    rows = [
        tuple(value)
        for reports in terminalreporter.stats.values()
        for entry in reports
        if getattr(entry, "when", None) == "call"
        for name, value in entry.user_properties
        if name == "attack"
    ]
    if not rows:
        return
    terminalreporter.section("attacks")
    rows = [("attack", "tries", "outcome"), ("---", "---:", "---"), *sorted(rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line(f"| {' | '.join(cells)} |")
