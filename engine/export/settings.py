"""Settings of an export. Imports no torch."""

from dataclasses import dataclass, field

from engine.errors import ExportError
from engine.settings import Action, control

FORMATS = ("safetensors", "gguf")


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """Settings of an export: the format of its files, the dtype of its tensors, and the largest size of one weights file."""

    form: str = field(
        default="safetensors",
        metadata=control(
            "safetensors, or gguf: tensors copied as they are quantised, where the model is a GGUF file", choices=FORMATS, flag="--format"
        ),
    )
    dtype: str = field(default="auto", metadata=control("auto (as stored), float32, bfloat16 or float16"))
    shard_size: str = field(default="5GB", metadata=control("largest size of one weights file, such as 5GB or 500MB"))

    def checked(self) -> "ExportSettings":
        """Return these settings.

        Raises:
            ExportError: the format is unknown.
        """
        if self.form not in FORMATS:
            raise ExportError("unknown format '{form}'; choose one of {choices}", form=self.form, choices=", ".join(FORMATS))
        return self


EXPORT = Action(
    "export", "Write the checkpoint that a plan describes, and check it in a fresh process. Exits 1 when a check fails.", ExportSettings
)
