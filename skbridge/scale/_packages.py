"""Packages of the extra "ray", imported when they are needed."""

from importlib import import_module


def _import(module, package):
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"skbridge.scale needs the package {package}, which cannot be imported "
            f"({error}): pip install 'skbridge[ray]'"
        ) from error


def import_ray():
    """Import Ray."""
    return _import("ray", "ray")


def import_parquet():
    """Import the part of pyarrow that reads and writes Parquet files."""
    return _import("pyarrow.parquet", "pyarrow")


def import_arrow():
    """Import pyarrow."""
    return _import("pyarrow", "pyarrow")


def import_fsspec():
    """Import fsspec, which opens URLs."""
    return _import("fsspec", "fsspec")
