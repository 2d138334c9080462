"""Run the speed benchmarks that need no data; write one report.

    python benchmarks/run_all.py --output docs/benchmarks.md

Each script runs in a process of its own and prints a section of Markdown. One that
fails is named in the report, and the others run all the same. So does one that is
still running at the end of the time for all; what it has printed is kept. With
`--quick` the problems are so small that the figures mean nothing.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from _measure import child_environment, machine, versions

FOLDER = Path(__file__).parent
SCRIPTS = [
    name
    for name in ("closed_form", "search", "startup", "embedding", "cache", "training")
    if (FOLDER / f"{name}.py").exists()
]
QUICK = {
    "closed_form": "--classes 8 --shots 2 --width 32 --queries 40 "
    "--memory-queries 2000 --repeats 1",
    "search": "--classes 6 --shots 3 --reference-settings 2 --trials 2",
    "startup": "--classes 4 --repeats 1",
    "embedding": "--n-images 4 --rounds 1 --sizes 100x75 --models skbridge-tiny "
    "--num-workers 1",
    "cache": "--model skbridge-tiny --n-images 18 --repeats 1",
    "training": "--sizes 4x2 --recipe-steps 20",
}


def run(name, arguments, seconds):
    """Run one script for at most so long; give its section, and whether it ended."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
    # Unbuffered, so that what was printed in time is not lost.
    environment = child_environment() | {"PYTHONUNBUFFERED": "1"}
    try:
        result = subprocess.run(
            command, capture_output=True, env=environment, timeout=max(seconds, 0.01)
        )
    except subprocess.TimeoutExpired as stopped:
        printed = (stopped.stdout or b"").decode() or f"## {name}\n"
        return f"{printed}\nFailed: stopped at the end of the time for all.\n", False
    if result.returncode:
        error = result.stderr.decode().strip().splitlines()[-1:]
        return f"## {name}\n\nFailed: {' '.join(error)}\n", False
    return result.stdout.decode(), True


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--scripts", nargs="+", default=SCRIPTS)
    parser.add_argument("--quick", action="store_true", help="see that all of it runs")
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="after which scripts are stopped"
    )
    options = parser.parse_args(argv)
    parts = [
        f"# Benchmarks\n\nMachine: {machine()}.\n\nVersions: {versions()}.\n\n"
        "Written by `make bench`; figures are medians, with their range in brackets."
    ]
    failed = []
    deadline = time.perf_counter() + 60 * options.minutes
    for name in options.scripts:
        if not (FOLDER / f"{name}.py").exists():
            raise SystemExit(f"There is no benchmark {name!r} in {FOLDER}.")
        started = time.perf_counter()
        arguments = QUICK.get(name, "").split() if options.quick else []
        section, succeeded = run(name, arguments, deadline - started)
        parts.append(section.strip())
        parts.append(
            f"`{' '.join(['python', f'benchmarks/{name}.py', *arguments])}`, "
            f"{time.perf_counter() - started:.0f} s"
        )
        failed += [] if succeeded else [name]
    report = "\n\n".join(parts) + "\n"
    print(report)
    if options.output is not None:
        options.output.write_text(report, encoding="utf-8")
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
