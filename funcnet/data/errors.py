"""The one error of data that cannot be read, found or used."""

__all__ = ["DataError"]


class DataError(ValueError):
    """A file, a folder or a name that holds no usable data; the message names it, the place in it, and the way out."""
