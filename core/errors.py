"""The library's own errors; bad values and types raise the built-in ones."""


class OsculantError(Exception):
    """Base of the library's own errors."""


class ProductUnavailable(OsculantError, NotImplementedError):
    """An oracle was asked for a product that it cannot answer; the message names who can."""


class NotDifferentiable(OsculantError, TypeError):
    """A function that has no derivative rule was met while a program was being differentiated."""


class NotAnalytic(OsculantError, TypeError):
    """A complex step met code that cannot be extended to complex arguments."""


class BackendUnavailable(OsculantError, ImportError):
    """A backend's framework is not installed, or its device is not there."""


class DataFormatError(OsculantError, ValueError):
    """A data file is malformed or truncated; the message gives its name and the byte or line."""


class CheckpointMismatch(OsculantError, ValueError):
    """A checkpoint belongs to another run; the message lists what differs."""
