"""What the benchmarks share: interleaved timing, the machine's rates and its name.

A benchmark is a script with ``main(argv=None)`` that prints a section of Markdown.
Its figures are ratios: the calls compared alternate in one process, on the same
data, so that a slow minute of the machine falls on all of it. Floors come from
counted operations and bytes over the rates measured here.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

_COPIED_BYTES = 2**28
_PACKAGES = ("skbridge", "scikit-learn", "numpy", "scipy", "torch", "open_clip_torch")


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median and the range of its repeats."""

    median: float
    low: float
    high: float

    def __str__(self):
        unit, factor = ("ms", 1e3) if self.median < 1 else ("s", 1)
        median, low, high = (factor * t for t in (self.median, self.low, self.high))
        digits = 3 if median < 10 else 1
        return f"{median:.{digits}f} {unit} ({low:.{digits}f} to {high:.{digits}f})"


def timing(seconds):
    """Summarise measured seconds."""
    return Timing(float(np.median(seconds)), float(min(seconds)), float(max(seconds)))


def interleaved(calls: Mapping[str, Callable], repeats=7, *, clock=time.perf_counter):
    """Time calls alternately, after one call of each that does not count.

    Parameters
    ----------
    calls : dict of str -> callable
        What to time, without arguments.
    repeats : int, default=7
        Rounds; each round makes every call once, the odd ones in reverse order.
    clock : callable, default=time.perf_counter
        Seconds; ``time.process_time`` counts CPU time instead.

    Returns
    -------
    dict of str -> Timing
    """
    seconds = {name: [] for name in calls}
    for call in calls.values():
        call()
    for turn in range(repeats):
        for name in reversed(calls) if turn % 2 else calls:
            started = clock()
            calls[name]()
            seconds[name].append(clock() - started)
    return {name: timing(taken) for name, taken in seconds.items()}


def matmul(dtype=np.float32, shape=(4096, 512, 1024)):
    """Make a call that multiplies matrices in place, and count its operations.

    Parameters
    ----------
    dtype : dtype
    shape : tuple of three ints
        (n, k, m): an (n, k) matrix times a (k, m) one.

    Returns
    -------
    call : callable
    operations : int
        2 n k m.
    """
    n, k, m = shape
    rng = np.random.default_rng(0)
    left = rng.normal(size=(n, k)).astype(dtype)
    right = rng.normal(size=(k, m)).astype(dtype)
    out = np.empty((n, m), dtype=dtype)
    return lambda: np.matmul(left, right, out=out), 2 * n * k * m


def matmul_rate(dtype=np.float32, shape=(4096, 512, 1024), repeats=7):
    """Operations a second of a matrix product, additions and products both counted."""
    call, operations = matmul(dtype, shape)
    return operations / interleaved({"product": call}, repeats)["product"].median


def copy_rate(repeats=7):
    """Bytes a second of a copy too large for the caches, reads and writes counted."""
    source = np.ones(_COPIED_BYTES, dtype=np.uint8)
    target = np.empty_like(source)
    times = interleaved({"copy": lambda: np.copyto(target, source)}, repeats)
    return 2 * _COPIED_BYTES / times["copy"].median


def machine():
    """Describe the processor, its cores, the threads of the BLAS and the memory."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
        name = models[0] if models else name
    memory = "memory unknown"
    if hasattr(os, "sysconf"):
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory = f"{size / 2**30:.0f} GiB of memory"
    blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    threads = max((pool["num_threads"] for pool in blas), default=1)
    return (
        f"{name}, {os.cpu_count()} cores, {memory}, {threads} BLAS threads, "
        f"{platform.system()}"
    )


def versions():
    """Name the versions of Python and of the packages that the figures depend on."""
    found = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def child_environment():
    """Environment in which a new interpreter imports what this one does."""
    folders = [str(Path(__file__).parent), *filter(None, sys.path)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders)}


def markdown_table(header, rows):
    """Lay out rows of cells as a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
