"""Run the tests with the oldest release of every dependency that is allowed.

The floors are read from pyproject.toml, where each is written ``name>=version``. They
are installed in a virtual environment of their own, together with the extras that the
tests need, and the tests run there::

    python tools/floors.py                  # all tests; `make floors` is the same
    python tools/floors.py tests/test_images.py -k alpha
    python tools/floors.py --list           # only print the floors

The oldest PyTorch brings several GB on Linux, and not every floor has a wheel for a
newer Python: use the oldest Python that is supported, which pyproject.toml names too.
"""

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-floors"
EXTRAS = ("test", "plots")
# Needs a newer huggingface_hub than the rest; its tests skip themselves.
APART = ("transformers",)
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)>=([0-9][A-Za-z0-9.]*)")


def floors(project, extras=EXTRAS):
    """Return the pins, such as ``["numpy==1.26"]``, of a ``[project]`` table.

    Raises
    ------
    ValueError
        If a requirement is anything but a name and a lower bound.
    """
    requirements = list(project["dependencies"])
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    pins = []
    for requirement in requirements:
        match = REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise ValueError(
                "Each requirement in pyproject.toml has one lower bound and no more, "
                f"such as 'numpy>=1.26'; got {requirement!r}."
            )
        if match[1] not in APART:
            pins.append(f"{match[1]}=={match[2]}")
    return pins


def oldest_python(project):
    """Return ``(3, 11)`` for ``requires-python = ">=3.11"``."""
    return tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))


def install(pins):
    """Make the virtual environment anew and return the path of its Python."""
    venv.create(FOLDER, clear=True, with_pip=True)
    python = FOLDER / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # One command, so that pip refuses floors that contradict one another.
    subprocess.run([*pip, *pins, "--editable", ROOT], check=True)
    return python


def main(arguments):
    """Install the floors where that has not been done, and run pytest."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    pins = floors(project)
    if arguments == ["--list"]:
        print("\n".join(pins))
        return 0
    if sys.version_info[:2] != oldest_python(project):
        print(f"The floors are meant for Python {project['requires-python']}")
    stamp = FOLDER / "floors.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8").split() == pins:
        python = FOLDER / ("Scripts" if os.name == "nt" else "bin") / "python"
    else:
        python = install(pins)
        stamp.write_text("\n".join(pins) + "\n", encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [python, "-m", "pytest", *arguments], cwd=ROOT, env=environment
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
