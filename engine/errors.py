"""The errors shown to users. Each states what is wrong with the value, what was expected, and what to do."""

from engine.messages import MessageError


class LayerscopeError(MessageError):
    """A user's mistake or a limit of the machine, stated in one line; never a bug."""


class SourceError(LayerscopeError):
    """The model cannot be found, read or understood."""


class UnsupportedModelError(SourceError):
    """The model is valid, but its family or one of its settings is not supported."""


class MemoryLimitError(LayerscopeError):
    """The model does not fit in the free memory."""


class TextError(LayerscopeError):
    """The texts cannot be used."""


class SettingsError(LayerscopeError):
    """A setting is outside the range that the method or the model allows."""


class PlanError(LayerscopeError):
    """A plan is malformed or made for another model."""


class TrainingError(LayerscopeError):
    """A run cannot continue training; its progress is kept."""


class ExportError(LayerscopeError):
    """A checkpoint cannot be written to the requested place."""


def reason_of(error: BaseException) -> str:
    """Return a library's error message on one line, to quote in ours; very long messages are truncated."""
    return (" ".join(str(error).split()) or type(error).__name__)[:500]
