"""Parts of messages."""


def shown(names, most=5):
    """Names in quotes, a few of them."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
