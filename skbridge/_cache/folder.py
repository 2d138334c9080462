"""The folder of the cache, and the store in it."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

from skbridge._cache.sqlite import SQLiteStore
from skbridge._messages import brief


def cache_folder(cache_dir):
    """Folder that the `cache_dir` parameter means.

    Parameters
    ----------
    cache_dir : str, path-like or None
        A folder; "auto", the folder that the environment variable
        ``SKBRIDGE_CACHE_DIR`` names, else ``skbridge`` in the user's cache folder of
        the platform; or None, the folder that ``SKBRIDGE_CACHE_DIR`` names, if any.

    Returns
    -------
    pathlib.Path or None
        None where nothing is cached.

    Raises
    ------
    ValueError
        If `cache_dir` is an empty string.

    Examples
    --------
    >>> from skbridge._cache.folder import cache_folder
    >>> cache_folder("embeddings").name
    'embeddings'
    """
    if isinstance(cache_dir, str) and not cache_dir.strip():
        raise ValueError(
            "cache_dir must be a folder, 'auto' or None, got the empty string "
            f"{brief(cache_dir)}. For the current folder write '.', for no cache None."
        )
    if cache_dir is None or cache_dir == "auto":
        named = os.environ.get("SKBRIDGE_CACHE_DIR")
        if named:
            cache_dir = named
        elif cache_dir is None:
            return None
        else:
            cache_dir = _user_cache() / "skbridge"
    return Path(cache_dir).expanduser().absolute()


def _user_cache():
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else Path.home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    xdg = os.environ.get("XDG_CACHE_HOME")
    return Path(xdg) if xdg else Path.home() / ".cache"


@contextmanager
def open_cache(cache_dir):
    """Open the store that `cache_dir` means for the length of a ``with`` block.

    Parameters
    ----------
    cache_dir : str, path-like or None
        As for `cache_folder`.

    Yields
    ------
    Store or None
        None where nothing is cached.
    """
    folder = cache_folder(cache_dir)
    if folder is None:
        yield None
        return
    store = SQLiteStore(folder)
    try:
        yield store
    finally:
        store.close()
