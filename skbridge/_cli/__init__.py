"""The command line: each command is a thin layer over public functions.

============  =====================================================================
`main`        parses the arguments, and makes one line of every error and warning
`photos`      ``fit``, ``predict``, ``report`` and ``label-next``
`scale`       ``embed`` and ``predict --ray``
`arguments`   arguments that several commands share
`output`      tables, CSV and JSON
`cache`       ``cache info``, ``clear`` and ``limit``
============  =====================================================================

Nothing imports this package but ``python -m skbridge`` and the script ``skbridge``.
"""

from skbridge._cli.main import main

__all__ = ["main"]
