"""What a user is told when a run cannot go on."""


class RunError(Exception):
    """What is wrong with a run, where, and what to do, in one sentence for the user."""
