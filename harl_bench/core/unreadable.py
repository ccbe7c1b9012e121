"""How many images of a data set may be unreadable: one rule for every command."""

MAX_UNREADABLE = 0.01  # of all images; more is a broken data set


def too_many(unreadable: int, total: int, *, allowed: bool) -> bool:
    """Return whether more than 1 % are unreadable, without --allow-unreadable: the run stops."""
    return unreadable > MAX_UNREADABLE * total and not allowed
