"""What a search is asked with, beside its target and its objective. Imports no torch."""

from dataclasses import dataclass, field

from engine.errors import SettingsError
from engine.settings import control


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Of a search: its time, and what is done with it."""

    seconds: float = field(default=120.0, metadata=control("how long to search at most", 10, 600, 10))
    repair: bool = field(default=False, metadata=control("repair the best few plans and take the best of those"))
    exhaustive: bool = field(
        default=False, metadata=control("try every plan, and tell how far from the best the others stay; only for small models")
    )

    def checked(self) -> "SearchSettings":
        """Return these settings.

        Raises:
            SettingsError: there is no time.
        """
        if not self.seconds > 0:
            raise SettingsError(f"a search needs time; {self.seconds} seconds are none")
        return self
