"""Errors of a run that the user can mend."""


class RunError(Exception):
    """An error that the user can mend: one sentence with what is wrong and what to do."""


def require(module: object, attribute: str, callback: object) -> None:
    """Refuse a callback whose module lacks an attribute that the callback needs.

    Raises:
        RunError: The module has no such attribute.
    """
    if not hasattr(module, attribute):
        name = type(callback).__name__
        raise RunError(
            f"{type(module).__name__} has no {attribute}, which {name} needs: remove {name} from "
            "trainer.callbacks."
        )


def reason(error: Exception) -> str:
    """The first line of an error's message, or else the error's type."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
