"""Errors that a user can act on: each message names the file or argument, the cause and the remedy.

The command line prints the message of a :class:`ChromozooError` alone. Any other exception is a bug
and keeps its traceback.
"""


class ChromozooError(Exception):
    """Base class of all errors that ChromoZoo raises on purpose."""


class ImageError(ChromozooError, ValueError):
    """An image cannot be read or shows no chromosome; the message begins with its name."""


class UnknownNameError(ChromozooError, ValueError):
    """A model, weights tag, data set or class is unknown; the message lists close matches."""


class WeightsError(ChromozooError, RuntimeError):
    """A weights file is missing, truncated, altered or does not fit the model."""


class DatasetNotFoundError(ChromozooError, FileNotFoundError):
    """A data set is not on this machine; the message holds numbered steps to obtain it."""


class DatasetError(ChromozooError, ValueError):
    """A file of a data set is damaged or does not have its published layout."""


class TrainingError(ChromozooError, ValueError):
    """A training cannot start or resume with these settings; the message names them."""


class OutputError(ChromozooError, OSError):
    """A result cannot be written: full disk, read-only folder or a file name that is too long."""
