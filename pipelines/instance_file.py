"""Writes `dagster.yaml`, and brings it up to date after an upgrade unless an operator has changed it.

The first line of a file that this module wrote holds a digest of the rest. Where the digest matches, the file is
replaced by the current settings. Files of earlier versions have no digest and are recognised by their content. Any
other file is the operator's: its values stay, and the sections of `ADDED` that it lacks are added, because without them
runs that a restart cut off are not started again.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from configs.files import write_text

ADDED = {"run_retries": {"run_retries"}, "run_queue": {"run_queue", "run_coordinator"}}
"""Sections that are added to an operator's file, each unless the file has one of the sections named with it."""
_MARK = "# Written by RecommendAI. A file that you change stays as it is. sha256:"
_ONE_PER_TENANT = {"key": "dagster/partition", "value": {"applyLimitPerUniqueValue": True}, "limit": 1}
_EARLIER_FORMS: list[tuple[int, list[str], bool]] = [
    (0, [], False),
    (1, ["training", "generation"], False),
    (2, ["training", "generation", "search"], False),
    (3, ["training", "generation", "search"], False),
    (3, ["training", "generation", "search"], True),
    (4, ["training", "generation", "exports", "search"], True),
]
"""For each earlier form of the file: how many more runs than trainings may be active, the kinds of work with a limit,
and whether sensors had threads."""


def bring_up_to_date(file: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into the file, or add what it lacks. Raises YAMLError where the file cannot be read."""
    wanted = _marked(yaml.safe_dump(dict(settings), sort_keys=False))
    if not file.exists():
        write_text(file, wanted)
        return
    text = file.read_text()
    if text == wanted:
        return
    first, _, body = text.partition("\n")
    found = yaml.safe_load(text)
    if (first.startswith(_MARK) and text == _marked(body)) or _is_earlier(found):
        write_text(file, wanted)
    elif found is None or isinstance(found, dict):
        _add_missing(file, text, found or {}, settings)


def _marked(body: str) -> str:
    return f"{_MARK}{sha256(body.encode()).hexdigest()}\n{body}"


def _add_missing(file: Path, text: str, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    added = {name: settings[name] for name, others in ADDED.items() if name in settings and not others & set(found)}
    if not added:
        return
    merged = {**found, **added}
    appended = f"{text.rstrip()}\n{yaml.safe_dump(added, sort_keys=False)}"  # keeps comments
    try:
        keeps_text = yaml.safe_load(appended) == merged
    except yaml.YAMLError:  # such as after a mapping in braces
        keeps_text = False
    write_text(file, appended if keeps_text else yaml.safe_dump(merged, sort_keys=False))


def _is_earlier(found: Any) -> bool:
    """Whether an earlier version wrote this, on a machine with any number of cores."""
    try:
        most = int(found["concurrency"]["runs"]["max_concurrent_runs"])
    except (KeyError, TypeError, ValueError):
        return False
    return any(found == _earlier(most, *form) for form in _EARLIER_FORMS)


def _earlier(most: int, more: int, kinds: list[str], threads: bool) -> dict[str, Any]:
    trainings = most - more
    limits = {"training": trainings, "search": trainings}
    work = [{"key": "recommendai/work", "value": kind, "limit": limits.get(kind, 1)} for kind in kinds]
    return {
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "concurrency": {"runs": {"max_concurrent_runs": most, "tag_concurrency_limits": [_ONE_PER_TENANT, *work]}},
        "run_monitoring": {"enabled": True, "max_runtime_seconds": 21_600},
        **({"sensors": {"use_threads": True, "num_workers": 4}} if threads else {}),
        "retention": {"sensor": {"purge_after_days": {"skipped": 1, "failure": 30, "success": 30}}},
    }
