"""Settings of a trim. Imports no torch."""

from dataclasses import dataclass, field

from engine.errors import SettingsError
from engine.settings import Action, control

# How projections that read cut parts are compensated, and the share of the work that scoring then is.
COMPENSATIONS = {"refit": 0.3, "bias": 0.6, "nothing": 1.0}


@dataclass(frozen=True, slots=True)
class TrimSettings:
    """Settings of a trim: the numbers of query heads, neurons and channels to keep (None keeps all), and how they are chosen."""

    heads: int | None = field(default=None, metadata=control("how many query heads every layer keeps"))
    neurons: int | None = field(default=None, metadata=control("how many neurons of the MLP every layer keeps"))
    channels: int | None = field(default=None, metadata=control("how many channels the model keeps"))
    score: str = field(default="weighted", metadata=control("the score by which they are chosen"))
    compensation: str = field(
        default="refit",
        metadata=control(
            "how projections that read cut parts are compensated: refit (in closed form on practice text), bias (FLAP's, where the family "
            "has one; a parameter budget does not count it) or nothing",
            choices=COMPENSATIONS,
        ),
    )
    plain: bool = field(default=False, metadata=control("leave norm gains unchanged where channels are cut, as Minitron does"))
    redistribute: bool = field(default=False, metadata=control("add the residuals of pruned heads to kept heads (Minitron)"))

    def checked(self) -> "TrimSettings":
        """Return these settings.

        Raises:
            SettingsError: the compensation is unknown.
        """
        if self.compensation not in COMPENSATIONS:
            raise SettingsError(
                "a trim cannot be compensated by '{compensation}'; choose one of {choices}",
                compensation=self.compensation,
                choices=", ".join(COMPENSATIONS),
            )
        return self


TRIM = Action("trim", "Write a narrower plan, without its masks; refitted weights are written next to it.", TrimSettings)
