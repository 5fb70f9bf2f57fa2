"""Errors that a user can act on: every message names the file (or name) and the remedy.

The command line prints the message alone; everything else is a bug and keeps its traceback.
"""


class ChromozooError(Exception):
    """Base of every error that ChromoZoo raises on purpose."""


class ImageError(ChromozooError, ValueError):
    """An image cannot be read or holds no chromosome; the message begins with its name."""


class UnknownNameError(ChromozooError, ValueError):
    """A model, weights tag, data set or class is not known; the message lists close matches."""


class WeightsError(ChromozooError, RuntimeError):
    """A weights file is missing, truncated, altered or does not fit the model."""


class DatasetNotFoundError(ChromozooError, FileNotFoundError):
    """A data set is not on this machine; the message holds the numbered steps to get it."""


class DatasetError(ChromozooError, ValueError):
    """A data set is there, but a file of it is damaged or out of its published layout."""


class TrainingError(ChromozooError, ValueError):
    """A training cannot be begun or continued with these settings; the message names them."""


class OutputError(ChromozooError, OSError):
    """A result cannot be written: the disk is full, the folder read-only, a name too long."""
