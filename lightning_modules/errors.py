"""The error of this package that users can fix."""


class ModelError(ValueError):
    """Problem with the weights or options of a model; the message states the fix."""
