"""``python -m skbridge``: the command line."""

import sys

from skbridge._cli import main

if __name__ == "__main__":
    sys.exit(main())
