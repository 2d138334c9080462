"""Arguments that several commands share."""

import argparse
import sys


def add_command(commands, name, run, does, has_cache=True):
    """Declare a command that needs a device and, mostly, the cache."""
    parser = commands.add_parser(
        name,
        help=does,
        description=f"{does.capitalize()}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda or mps (default: %(default)s)"
    )
    if has_cache:
        parser.add_argument(
            "--cache-dir",
            default="auto",
            metavar="FOLDER",
            help="where embeddings are stored (default: that of skbridge cache)",
        )
    return parser


def positive(text):
    """Parse a number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)


def count(text):
    """Parse a number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return int(text)


def verbose():
    """Show a progress bar where a person sees it."""
    return int(sys.stderr.isatty())
