"""What may be sent to another process: functions that it can import, and small plain values.

Both implementations check this, so that a step that works on a laptop is not refused on a cluster.
"""

import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any

MAX_TASK_VALUES = 10_000
"""Values in one task, a bound on what is sent. Longer lists are files in the shared folder."""

_PLAIN = (str, bytes, bool, int, float, date, timedelta, PurePath, Enum, type(None))


def check_importable(function: Callable[..., Any]) -> None:
    """Raise TypeError where another process could not import the function by its name."""
    module = sys.modules.get(getattr(function, "__module__", ""))
    name = getattr(function, "__qualname__", "")
    if module is None or getattr(module, name, None) is not function:
        raise TypeError(f"{function!r} is no function at the top level of a module, so that no other process finds it")


def check_plain(task: object) -> None:
    """Raise TypeError where a task holds anything but plain values, or more than MAX_TASK_VALUES of them."""
    waiting, n_values = [task], 0
    while waiting:
        value = waiting.pop()
        n_values += 1
        if n_values > MAX_TASK_VALUES:
            raise TypeError(
                f"a task holds more than {MAX_TASK_VALUES:,} values: write them to a file and send its path"
            )
        if isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif is_dataclass(value) and not isinstance(value, type):
            waiting += [getattr(value, each.name) for each in fields(value)]
        elif not isinstance(value, _PLAIN):
            raise TypeError(f"a task holds a {type(value).__name__}: tasks are plain values, such as paths and ranges")
