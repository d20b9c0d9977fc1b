"""The methods that a configuration asks for, and those that a choice tries."""

from typing import TYPE_CHECKING

from training.models.collaborative.methods import Method

if TYPE_CHECKING:
    from training.models.collaborative.model import CollaborativeConfig

SINGLE_HALF_LIFE = 4.0
"""Of the transitions between too many items for two half-lives."""
LESS = 0.2
"""Factor of the configured ridge of transitions that is tried beside it."""
RIDGES = (0.2, 5.0)
"""The same of EASE."""


def named_method(config: "CollaborativeConfig", n_items: int) -> Method:
    """The method that a configuration names; `by-size` for `auto`, which is what it takes where it cannot choose.

    Raises ValueError for transitions between more items than `transition_items` allows.
    """
    small = bool(config.decay_half_lives) and n_items * len(config.decay_half_lives) <= config.transition_items
    if config.method == "transitions" and not small:
        raise ValueError(
            f"there are no transitions between {n_items} items with {len(config.decay_half_lives)} half-lives: "
            f"`transition_items` allows {config.transition_items} in all"
        )
    if config.method == "neighbours":
        return Method(name="neighbours", half_life=config.half_life)
    if config.method == "ease" or not small:
        return Method(name="ease", regularisation=config.regularisation, half_life=config.half_life)
    return Method(name="transitions", regularisation=config.transition_regularisation)


def candidates_of(config: "CollaborativeConfig", n_items: int) -> list[Method]:
    """What `auto` tries: in front what it would take without a choice, at the end what time may be too short for."""
    first = named_method(config, n_items)
    neighbours = Method(name="neighbours", half_life=config.half_life)
    ease = Method(name="ease", regularisation=config.regularisation, half_life=config.half_life)
    ridges = [ease.model_copy(update={"regularisation": config.regularisation * factor}) for factor in RIDGES]
    transitions = []
    if first.name == "transitions":
        transitions.append(first.model_copy(update={"regularisation": config.transition_regularisation * LESS}))
    elif config.decay_half_lives and n_items <= config.single_transition_items:
        ridge = config.regularisation
        transitions.append(Method(name="transitions", regularisation=ridge, half_life=SINGLE_HALF_LIFE))
    return list(dict.fromkeys([first, neighbours, ease, *transitions, *ridges]))
