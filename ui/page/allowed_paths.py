"""What visitors of a page may name on the machine that serves it: anything where it is their own, else what was offered to them."""

from dataclasses import dataclass
from pathlib import Path

from engine.errors import LayerscopeError
from engine.untrusted import real_path


@dataclass(frozen=True, slots=True)
class AllowedPaths:
    """The folders that models and texts are read from; None where the page is for this machine alone, whose files are its person's."""

    roots: tuple[Path, ...] | None = None

    def holds(self, where: str) -> bool:
        """Return whether a model or a text of this name may be read. Nothing is said of what lies elsewhere, not even that it is there."""
        if self.roots is None or where in ("", "demo") or where.startswith("hub:"):
            return True
        try:
            path = real_path(where)
        except (OSError, ValueError):
            return False
        return any(path.is_relative_to(root) for root in self.roots)

    def require(self, where: str) -> None:
        """Raise LayerscopeError where it may not be read."""
        if not self.holds(where):
            raise LayerscopeError(f"'{where[:200]}' is not in the folders that this server reads from")
