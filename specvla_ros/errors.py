"""Errors that a user can act on: each message names the thing, what was expected and what to do."""


class SpecVLAError(Exception):
    """Base of every error this package raises on bad input."""


class CheckpointError(SpecVLAError):
    """A checkpoint or draft directory cannot be loaded as it is."""


class ConfigurationError(SpecVLAError):
    """A setting (threshold, draft name, device, normalisation key) is not one that exists or fits."""


class ImageError(SpecVLAError):
    """An image cannot be used: wrong type, shape or encoding."""


class DecodeError(SpecVLAError):
    """The model gave no usable action."""


class SimulationError(SpecVLAError):
    """The simulator is not installed, cannot render, or was given an action it cannot take."""


class BagError(SpecVLAError):
    """A recorded bag cannot be written or read, or does not fit what it is played to."""


class DataError(SpecVLAError):
    """Training data is missing, incomplete or not in the layout that is read."""
