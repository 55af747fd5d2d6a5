"""The error of this package that users can mend."""


class ModelError(ValueError):
    """What is wrong with a model's weights or options, and what to do, in one sentence."""
