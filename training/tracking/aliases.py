"""The aliases of registered models, and the holds that persons put on them.

    champion    the version that serves
    challenger  the newest version that did not become champion
    previous    the champion before this one, which `python -m pipelines rollback` goes back to

The tag `champion_chosen` of a registered model names the version that this program made champion last. Where the alias
`champion` names another one, a person moved it in MLflow. That, and a rollback, put a hold on the family: later
versions become challengers only, until a person lifts it. Holds are tags of the registered model, so MLflow shows them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import pandas as pd
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from training.tracking.experiments import Experiments

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
IN_MLFLOW = "a person in MLflow"
"""Who moved an alias there; MLflow does not say who it was."""
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""Error codes of MLflow for a name, an alias or a version that does not exist."""

_CHOSEN, _BY_HAND = "champion_chosen", "champion_by_hand"
_HELD_BY, _HELD_SINCE, _HELD_REASON = "champion_held_by", "champion_held_since", "champion_held_reason"
_REFIT_OF = "champion_refit_of"
_HOLD_TAGS = (_HELD_BY, _HELD_SINCE, _HELD_REASON, _REFIT_OF)
_REPLACED = "replaced_version"
_NONE = "none"
_PAGE = 200


@dataclass(frozen=True)
class Hold:
    """A person chose the champion, so no training replaces it."""

    by: str
    since: str  # RFC 3339
    reason: str
    refit_of: str | None = None
    """A version whose configuration the next training fits anew, because the version itself cannot be served."""


@dataclass(frozen=True)
class ModelAliases:
    """What the registry says of one registered model."""

    name: str
    aliases: Mapping[str, str]  # alias to version
    hold: Hold | None
    chosen: tuple[str, ...] | None  # what the program made champion; two while it moves the alias; None: never noted
    by_hand: str | None = None  # the version that a person made champion by command last

    @classmethod
    def of(cls, model: RegisteredModel) -> Self:
        tags = model.tags
        hold = None
        if _HELD_BY in tags:
            hold = Hold(tags[_HELD_BY], tags.get(_HELD_SINCE, ""), tags.get(_HELD_REASON, ""), tags.get(_REFIT_OF))
        chosen = tags.get(_CHOSEN)
        aliases = {alias: str(version) for alias, version in model.aliases.items()}
        return cls(model.name, aliases, hold, None if chosen is None else tuple(chosen.split()), tags.get(_BY_HAND))

    @property
    def champion(self) -> str | None:
        return self.aliases.get(CHAMPION)

    @property
    def moved_by_hand(self) -> bool:
        """Whether a person moved the alias `champion`. One that was removed is not moved: it blocks promotions."""
        return self.champion is not None and self.chosen is not None and self.champion not in self.chosen

    @property
    def chosen_by_a_person(self) -> bool:
        """Whether a person, and not the promotion rule, made the champion one."""
        return self.champion is not None and (self.hold is not None or self.by_hand == self.champion)


class Aliases(Experiments):
    """The aliases and holds on one MLflow server or store. Names are those of registered models."""

    def model_aliases(self, name: str) -> ModelAliases | None:
        """The aliases of a registered model; None where there is no such model."""
        try:
            return ModelAliases.of(self.client.get_registered_model(name))
        except MlflowException as error:
            if error.error_code in MISSING:
                return None
            raise

    def page_of_aliases(self, token: str | None = None) -> tuple[list[ModelAliases], str | None]:
        """The aliases of up to 200 registered models, and the token of the next page where there is one."""
        found = self.client.search_registered_models(max_results=_PAGE, page_token=token)
        return [ModelAliases.of(model) for model in found], found.token or None

    def notice_move(self, aliases: ModelAliases) -> ModelAliases:
        """Put a hold on a model whose alias a person moved in MLflow; returns what the registry says then."""
        if aliases.chosen is None:  # trained by a version of the program that noted no choice
            self._choose(aliases.name, aliases.champion)
        elif aliases.moved_by_hand:
            self.hold(aliases.name, IN_MLFLOW, "the alias `champion` was moved")
            self._set_previous(aliases.name, aliases.champion, next(iter(aliases.chosen), _NONE))
            self._choose(aliases.name, aliases.champion)
        else:
            return aliases
        return self.model_aliases(aliases.name) or aliases

    def make_champion(self, name: str, version: str, *, previous: str | None = None, by_hand: bool = False) -> None:
        """Move `champion` to a version, and `previous` to the champion before it, or to the version given.

        by_hand: whether a person chose the version by command.
        """
        found = self.model_aliases(name)
        before = None if found is None else found.champion
        # Both are named while the alias moves, so that a crash between the writes looks like no person's doing.
        self._choose(name, version, *([before] if before else []))
        if by_hand:
            self.client.set_registered_model_tag(name, _BY_HAND, version)
        self.client.set_registered_model_alias(name, CHAMPION, version)
        if previous is not None or before not in (None, version):
            self._set_previous(name, version, previous or before)
        if found is not None and found.aliases.get(CHALLENGER) == version:
            self.client.delete_registered_model_alias(name, CHALLENGER)
        self._choose(name, version)

    def make_challenger(self, name: str, version: str) -> None:
        """Move `challenger` to a version that was not promoted."""
        self.client.set_registered_model_alias(name, CHALLENGER, version)
        found = self.model_aliases(name)
        if found is not None and found.chosen is None:
            self._choose(name, found.champion)

    def go_back(self, name: str) -> str | None:
        """Make `previous` the champion and return it; None where there is no previous version.

        `previous` then names what that version had replaced, so that a second rollback goes one version further back.
        """
        found = self.model_aliases(name)
        version = None if found is None else found.aliases.get(PREVIOUS)
        if version is None:
            return None
        self.make_champion(name, version, previous=self._replaced_by(name, version) or _NONE)
        return version

    def reached_by_rollbacks(self, model: ModelAliases, rollbacks: int) -> Iterator[str]:
        """The versions that `rollbacks` calls of `go_back` in a row would make champion, in this order."""
        version = model.aliases.get(PREVIOUS)
        for _ in range(rollbacks):
            if version is None or version == _NONE or not self._exists(model.name, version):
                return
            yield version
            version = self._replaced_by(model.name, version)

    def hold(self, name: str, by: str, reason: str, refit_of: str | None = None) -> Hold:
        """Keep trainings from replacing the champion until `end_hold`."""
        hold = Hold(by, pd.Timestamp.now("UTC").isoformat(timespec="seconds"), reason, refit_of)
        self._remove_tags(name, [_REFIT_OF])
        for tag, value in zip(_HOLD_TAGS, (hold.by, hold.since, hold.reason, hold.refit_of), strict=True):
            if value is not None:
                self.client.set_registered_model_tag(name, tag, value)
        return hold

    def end_hold(self, name: str) -> Hold | None:
        """End a hold and return it; None where there was none."""
        found = self.model_aliases(name)
        if found is None:
            return None
        found = self.notice_move(found)
        self._remove_tags(name, _HOLD_TAGS)
        return found.hold

    def refitted(self, name: str) -> None:
        """Note that the version of a hold's `refit_of` was fitted anew."""
        self._remove_tags(name, [_REFIT_OF])

    def _choose(self, name: str, *versions: str | None) -> None:
        text = " ".join(version for version in versions if version is not None) or _NONE
        self.client.set_registered_model_tag(name, _CHOSEN, text)

    def _set_previous(self, name: str, champion: str | None, previous: str | None) -> None:
        """Point `previous` at a version that exists, and note at the champion what it replaced."""
        if previous is None or previous in (_NONE, champion) or not self._exists(name, previous):
            self.client.delete_registered_model_alias(name, PREVIOUS)
            return
        self.client.set_registered_model_alias(name, PREVIOUS, previous)
        if champion is not None:
            self.client.set_model_version_tag(name, champion, _REPLACED, previous)

    def _replaced_by(self, name: str, version: str) -> str | None:
        replaced: str | None = self.client.get_model_version(name, version).tags.get(_REPLACED)
        return replaced

    def _exists(self, name: str, version: str) -> bool:
        try:
            self.client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code in MISSING:
                return False
            raise
        return True

    def _remove_tags(self, name: str, tags: tuple[str, ...] | list[str]) -> None:
        found = self.client.get_registered_model(name)
        for tag in tags:
            if tag in found.tags:
                self.client.delete_registered_model_tag(name, tag)
