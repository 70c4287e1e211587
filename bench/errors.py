"""The one error of the bench."""


class MeasureError(Exception):
    """A measure that has no result: its text says what failed, in one line."""
