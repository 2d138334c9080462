"""Warnings, and values quoted in messages in a bounded length."""

import warnings
from contextlib import contextmanager
from contextvars import ContextVar

_LONGEST = 120
_IS_QUIET = ContextVar("is_quiet", default=False)


def warn(message, *, stacklevel):
    """Issue a UserWarning, unless the caller runs in :func:`quiet`."""
    if not _IS_QUIET.get():
        warnings.warn(message, UserWarning, stacklevel=stacklevel + 1)


@contextmanager
def quiet():
    """Issue none of the library's own warnings in this thread.

    ``warnings.catch_warnings`` changes the filters of all threads, and threads that
    leave it in another order than they entered leave changed filters behind.
    """
    token = _IS_QUIET.set(True)
    try:
        yield
    finally:
        _IS_QUIET.reset(token)


def brief(value) -> str:
    """Representation of a value, cut to 120 characters."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def shown(names, most=5) -> str:
    """Representations of the first names, and the number of the others."""
    quoted = ", ".join(brief(name) for name in names[:most])
    quoted = quoted if len(quoted) <= _LONGEST else f"{quoted[: _LONGEST - 1]}…"
    return quoted if len(names) <= most else f"{quoted} and {len(names) - most} more"
