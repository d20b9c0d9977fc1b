"""How much of a user's history models read."""

from pydantic import Field

from configs.settings import Settings


class HistorySettings(Settings):
    """Bounds on a user's history, the same for training and for requests."""

    max_events: int = Field(default=200, alias="HISTORY_MAX_EVENTS", ge=1, description="newest events a model sees")
    max_seen: int = Field(default=2_000, alias="HISTORY_MAX_SEEN", ge=1, description="newest items `excludeSeen` drops")

    @property
    def max_scanned(self) -> int:
        """Newest events that are read to find a user's seen items. It bounds the read of the busiest user."""
        return max(self.max_events, self.max_seen * 10)
