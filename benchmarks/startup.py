"""Time from the start of the interpreter to the import and to the first prediction.

Every run is a new interpreter, and the scripts alternate. `import skbridge` is
compared with `import sklearn.base`; a fitted classifier of 1,000 classes and 512
features is loaded with joblib and predicts one row, which must import no torch. The
interpreters end at once when they have done it, without freeing what they imported, so
that the time from the start is what counts.

    python benchmarks/startup.py
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import joblib
from _measure import child_environment, interleaved, markdown_table
from search import make_problem

from skbridge import SeMoBridgeClassifier

END = "\nimport os; os._exit(0)"
SCRIPTS = {
    "python": "pass",
    "import sklearn.base": "import sklearn.base",
    "import skbridge": "import skbridge",
    "load and predict": """
import sys
import joblib
classifier, X = joblib.load(sys.argv[1])
classifier.predict(X)
loaded = {"torch", "open_clip", "matplotlib"} & set(sys.modules)
if loaded:
    sys.exit(f"imported {sorted(loaded)}")
""",
}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(argv)
    X, y, head = make_problem(options.classes, 4)
    classifier = SeMoBridgeClassifier(texts=head).fit(X, y)
    environment = child_environment()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "classifier.joblib")
        joblib.dump((classifier, X[:1]), path)

        def run(script):
            command = [sys.executable, "-c", script + END, path]
            subprocess.run(command, check=True, env=environment)

        calls = {name: lambda s=s: run(s) for name, s in SCRIPTS.items()}
        times = interleaved(calls, options.repeats)
    base = times["import sklearn.base"].median
    print("## Start-up\n")
    print(
        f"Medians of {options.repeats} new interpreters each, with their "
        f"range; the classifier has {options.classes:,} classes.\n"
    )
    rows = [[name, t, f"{t.median / base:.2f}"] for name, t in times.items()]
    print(markdown_table(["script", "time", "/ `import sklearn.base`"], rows))


if __name__ == "__main__":
    main()
