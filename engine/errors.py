"""The errors a person may see. Each says what is wrong with its value, what was expected, and what to do."""


class LayerscopeError(Exception):
    """A person's mistake or a limit of the machine, told in one line; never a bug."""


class SourceError(LayerscopeError):
    """The model cannot be found, read or understood."""


class UnsupportedModelError(SourceError):
    """The model is sound, but its family or a setting of it cannot be folded."""


class MemoryLimitError(LayerscopeError):
    """The model does not fit in the memory that is free."""


class TextError(LayerscopeError):
    """The calibration texts cannot be used."""


class SettingsError(LayerscopeError):
    """A setting lies outside what the method or the model allows."""


class PlanError(LayerscopeError):
    """A plan is malformed or made for another model."""


class TrainingError(LayerscopeError):
    """A run cannot go on learning; what it had learned is kept."""


class ExportError(LayerscopeError):
    """A checkpoint cannot be written where it was asked for."""


def reason_of(error: BaseException) -> str:
    """Return a library's whole error on one line, for one of ours to quote; the end of a very long one is cut off."""
    return (" ".join(str(error).split()) or type(error).__name__)[:500]
