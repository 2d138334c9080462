"""Arguments, exit status, and errors and warnings of one line each."""

import argparse
import logging
import os
import sys
import warnings

from skbridge._cli import cache, photos, scale
from skbridge._version import __version__

_EXAMPLES = """\
examples:
  skbridge fit photos/ -o model.skb          learn from one folder per class
  skbridge predict model.skb new/            classify new photographs
  skbridge report model.skb new/ -o new.html check predictions in a browser
  skbridge label-next model.skb pool/ -n 20  find those most worth a label
  skbridge embed photos/ -o embeddings/      embed millions, in many processes
  skbridge COMMAND --help                    options of a command
"""
# Exit status after Ctrl-C.
_INTERRUPTED = 130
# torch raises RuntimeError where a device has too little memory.
_EXPECTED = (ValueError, LookupError, OSError, ImportError, MemoryError, RuntimeError)


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, default=None
        Arguments; None means those of the process.

    Returns
    -------
    int
        0; 1 after an error; 130 after Ctrl-C. Arguments that cannot be parsed exit
        with 2.

    Examples
    --------
    >>> import tempfile
    >>> from skbridge._cli import main
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     status = main(["cache", "clear", "--dir", folder])
    0 entries removed.
    """
    options = _parser().parse_args(argv)
    # open_clip tells that it starts from random weights, which are replaced after.
    logging.basicConfig(level=logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _show_warning
            options.run(options)
            sys.stdout.flush()
    except KeyboardInterrupt:
        _tell("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output, such as head, has enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _EXPECTED as error:
        _tell(f"error: {_one_line(error)}")
        return 1
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="skbridge",
        description="Few-shot image classification with CLIP: from folders of "
        "photographs to answers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"skbridge {__version__}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    photos.add_parsers(commands)
    scale.add_parser(commands)
    cache.add_parser(commands)
    return parser


def _tell(message):
    print(f"skbridge: {message}", file=sys.stderr)


def _one_line(error):
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {error.filename!r}"
    return " ".join(str(error).split()) or type(error).__name__


def _show_warning(message, category, filename, lineno, file=None, line=None):
    _tell(f"warning: {_one_line(message)}")
