"""Values quoted in messages, in a bounded length."""

_LONGEST = 120


def brief(value) -> str:
    """Representation of a value, cut to 120 characters."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def shown(names, most=5) -> str:
    """Representations of the first names, and the number of the others."""
    quoted = ", ".join(brief(name) for name in names[:most])
    quoted = quoted if len(quoted) <= _LONGEST else f"{quoted[: _LONGEST - 1]}…"
    return quoted if len(names) <= most else f"{quoted} and {len(names) - most} more"
