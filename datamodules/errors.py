"""What users can mend about their data."""


class DataError(Exception):
    """What is wrong with the data, where, and what to do, in one sentence for the user."""
