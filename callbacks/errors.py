"""What a user is told when a run cannot go on."""


class RunError(Exception):
    """What is wrong with a run, where, and what to do, in one sentence for the user."""


def require(module: object, attribute: str, callback: object) -> None:
    """Refuses a callback beside a module that lacks what the callback looks at."""
    if not hasattr(module, attribute):
        raise RunError(
            f"{type(module).__name__} has no {attribute}, which {type(callback).__name__} looks "
            "at: take the callback from trainer.callbacks."
        )


def reason(error: Exception) -> str:
    """An error in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
