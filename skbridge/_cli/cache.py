"""Inspect, limit or empty the cache of embeddings."""

import argparse
import re

from skbridge._cache.folder import open_cache
from skbridge._cache.store import SMALLEST_LIMIT

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def run(options):
    """Inspect, empty or limit the cache."""
    with open_cache(options.dir) as cache:
        if options.action == "clear":
            print(f"{cache.clear()} entries removed.")
            return
        if options.action == "limit":
            cache.set_limit(options.size)
        _print_info(cache.info())


def _print_info(info):
    print(f"file     {info['file']}")
    print(f"size     {_shown(info['bytes'])} of at most {_shown(info['limit'])}")
    print(f"entries  {info['entries']}")
    for label, count in info["spaces"].items():
        print(f"  {count:>8}  {label}")


def add_parser(commands):
    """Declare the command and its arguments."""
    cache = commands.add_parser(
        "cache", help="inspect or empty the embedding cache", description=__doc__
    )
    cache.set_defaults(run=run)
    actions = cache.add_subparsers(dest="action", required=True)
    for action, does in (
        ("info", "show its size and its entries"),
        ("clear", "remove the entries of all models"),
        ("limit", "set its largest size; the least recently used entries are removed"),
    ):
        command = actions.add_parser(action, help=does)
        if action == "limit":
            command.add_argument("size", type=_bytes, help="such as 500MB or 10GB")
        command.add_argument(
            "--dir",
            default="auto",
            help="its folder (default: SKBRIDGE_CACHE_DIR, else the user's cache)",
        )


def _bytes(text):
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(
            f"expected a size such as 500MB or 10GB, got {text!r}"
        )
    n_bytes = int(float(match[1]) * _UNITS[match[2]])
    if n_bytes < SMALLEST_LIMIT:
        raise argparse.ArgumentTypeError(f"expected at least 1MB, got {text!r}")
    return n_bytes


def _shown(n_bytes):
    """Write a size in the largest unit that does not exceed it."""
    prefix = max(
        (prefix for prefix, unit in _UNITS.items() if unit <= n_bytes),
        key=_UNITS.get,
        default="",
    )
    return f"{n_bytes / _UNITS[prefix]:.3g} {prefix.upper()}B"
