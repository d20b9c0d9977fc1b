"""Whether an answer has the shape of an example: the same members, each of the same kind."""

import re
from collections.abc import Iterator
from typing import Any

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
DATE = re.compile(r"\d{4}-\d\d-\d\d")
NULLABLE = {"lastActiveAt", "avgAccuracy", "accuracy"}
"""Members that are null until there is something to say."""
OPEN = {"metadata"}
"""Members whose own members are whatever the client once sent."""


def differences(example: Any, answer: Any, adds: frozenset[str] = frozenset(), place: str = "answer") -> Iterator[str]:
    """What is different, one sentence each. adds: members of objects that may be there beside the example's."""
    match example:
        case dict():
            if not isinstance(answer, dict):
                yield f"{place} is no object: {answer!r}"
                return
            if missing := example.keys() - answer.keys():
                yield f"{place} lacks {sorted(missing)}"
            if extra := answer.keys() - example.keys() - adds:
                yield f"{place} has {sorted(extra)} besides"
            for name in example.keys() & answer.keys():
                if name in OPEN:
                    if not isinstance(answer[name], dict):
                        yield f"{place}.{name} is no object: {answer[name]!r}"
                elif answer[name] is not None or name not in NULLABLE:
                    yield from differences(example[name], answer[name], adds, f"{place}.{name}")
        case list():
            if not isinstance(answer, list) or not answer:
                yield f"{place} is no array with something in it: {answer!r}"
                return
            for index, part in enumerate(answer):
                yield from differences(example[0], part, adds, f"{place}[{index}]")
        case _:
            if not _is_alike(example, answer):
                yield f"{place} is {answer!r}, not like {example!r}"


def _is_alike(example: Any, answer: Any) -> bool:
    match example:
        case bool():
            return isinstance(answer, bool)
        case int():
            return isinstance(answer, int) and not isinstance(answer, bool)
        case float():
            return isinstance(answer, int | float) and not isinstance(answer, bool)
        case str() if MOMENT.fullmatch(example):
            return isinstance(answer, str) and MOMENT.fullmatch(answer) is not None
        case str() if DATE.fullmatch(example):
            return isinstance(answer, str) and DATE.fullmatch(answer) is not None
        case str():
            return isinstance(answer, str) and bool(answer)
    raise TypeError(f"no example of JSON: {example!r}")
