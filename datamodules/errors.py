"""The error for problems with the data that users can fix themselves."""

MAX_LISTED = 20  # file names in a message


class DataError(Exception):
    """A problem with the data: what is wrong, where, and what to do, in one or two sentences."""
