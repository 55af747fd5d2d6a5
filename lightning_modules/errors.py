"""Errors of this package that users can fix."""


class ModelError(ValueError):
    """Problem with the weights or options of a model; the message states the fix."""


class UnknownOptionError(ModelError, TypeError):
    """Option that a model of timm does not have."""
