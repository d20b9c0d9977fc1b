"""Long-lived objects of a server are excluded from garbage collection; later cycles are still collected."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from configs import memory


class Node:
    """Refers to itself, so that only a collection frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_is_held_is_out_of_sight_of_later_collections() -> None:
    held = Node()
    memory.settle()
    assert not any(each is held for each in gc.get_objects())
    assert gc.get_freeze_count() > 0


def test_cycles_made_before_and_after_are_freed() -> None:
    before = weakref.ref(Node())
    memory.settle()
    assert before() is None
    after = weakref.ref(Node())
    gc.collect()
    assert after() is None


def test_a_cycle_that_was_held_and_is_not_any_more_goes_with_the_next_load() -> None:
    node = Node()
    gone = weakref.ref(node)
    memory.settle()
    del node
    gc.collect()
    assert gone() is not None  # frozen
    memory.settle()
    assert gone() is None
