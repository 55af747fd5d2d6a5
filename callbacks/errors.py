"""What a user is told when a run cannot go on."""


class RunError(Exception):
    """What is wrong with a run, where, and what to do, in one sentence for the user."""


def reason(error: Exception) -> str:
    """An error in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
