"""The content-based family: scores items by their metadata, so that items without a single event are scored too.

The family has two models, and its configuration chooses: `content_based.bilinear` maps content to content, and
`cold_start.label_mixture` mixes the labels of items. Both are linear in the history.
"""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

from training.data.dataset import MIN_REPEAT_SHARE
from training.data.profile import DataProfile
from training.models.content_based.config import ContentBasedConfig
from training.models.content_based.encoder import ContentEncoder
from training.models.content_based.workload import content_based_workload
from training.models.default_values import family_values
from training.models.linear import LinearRecommender
from training.models.workload import DataSizes, Workload

HELD_OUT_USERS = 5_000


class ContentBased(LinearRecommender):
    """Which content follows which in histories, learned from metadata, so that items without any event are ranked too.

    This class is what both models share; `ContentBased(config)` makes the one that the configuration asks for.
    """

    family = "content-based"
    Config = ContentBasedConfig
    config: ContentBasedConfig
    encoder: ContentEncoder

    def __new__(cls, config: ContentBasedConfig | None = None) -> Self:
        chosen = _model_class(config or ContentBasedConfig()) if cls is ContentBased else cls
        return cast(Self, object.__new__(chosen))

    @classmethod
    def default_config(cls, profile: DataProfile) -> ContentBasedConfig:
        """The label mixture where users repeat items and times are known, otherwise the bilinear map.

        The mixture takes into account what the user and all users chose lately, which repeats depend on. The settings
        of the map are chosen on held-out events of up to `HELD_OUT_USERS` users.
        """
        knows_repeats = profile.repeat_share >= MIN_REPEAT_SHARE and profile.span_days > 0
        chosen: dict[str, Any] = {"mixture": {}} if knows_repeats else {"held_out_users": HELD_OUT_USERS}
        return ContentBasedConfig.model_validate({**family_values(cls.family), **chosen})

    @classmethod
    def workload(
        cls,
        sizes: DataSizes,
        config: ContentBasedConfig,
        refit: bool = False,
        base_models: Mapping[str, Workload] | None = None,
    ) -> Workload:
        return content_based_workload(sizes, config, refit)

    def save(self, path: Path) -> None:
        super().save(path)
        self.encoder.save(path)
        self._save_state(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        model = super().load(path)
        model.encoder = ContentEncoder.load(path)
        model._load_state(path)
        return model

    @abstractmethod
    def _save_state(self, path: Path) -> None:
        """Write what neither the linear model nor the encoder writes into the folder `path`."""

    @abstractmethod
    def _load_state(self, path: Path) -> None:
        """Read what `_save_state` wrote; the linear model and the encoder are loaded already."""


def _model_class(config: ContentBasedConfig) -> type[ContentBased]:
    if config.mixture is None:
        from training.models.content_based.bilinear import BilinearContent  # a subclass: it imports this module

        return BilinearContent
    from training.models.cold_start.label_mixture import LabelMixture  # a subclass: it imports this module

    return LabelMixture
