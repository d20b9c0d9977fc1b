"""`make settings` writes docs/settings.md from the settings classes; a test compares the two."""

import re
from pathlib import Path
from typing import get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from configs.settings import Settings
from tests.fixtures.settings import ROOT, settings_classes

PAGE = ROOT / "docs" / "settings.md"
HEAD = """\
# Settings

Every setting of an installation. `make settings` writes this page from the settings classes, and a test compares them:
change a description in its class, not here. A process reads its environment once, when it starts; a value that is not
valid ends it with a message that names the variable. Settings of each tenant's pipeline are
[elsewhere](pipeline-settings.md).

Several words in one variable are separated by commas or spaces. Secrets appear in no log and no message.
"""


def page() -> str:
    """The text of docs/settings.md."""
    kinds = sorted(settings_classes(), key=lambda kind: kind.__module__ != Settings.__module__)
    return "\n".join([HEAD, *map(_section, kinds)])


def _section(kind: type[Settings]) -> str:
    module = Path(kind.__module__.replace(".", "/")).with_suffix(".py")
    rows = [_row(field) for field in kind.model_fields.values() if field.alias]
    introduction = re.sub(r"\s+", " ", (kind.__doc__ or "").strip())
    head = f"## {kind.__name__}\n{introduction} (`{module}`)\n\n| variable | default | meaning |\n|---|---|---|"
    return "\n".join([head, *rows, ""])


def _row(field: FieldInfo) -> str:
    words = [field.description or "", _bounds(field), "secret" if _is_secret(field) else ""]
    meaning = "; ".join(word for word in words if word).replace("|", "\\|")
    return f"| `{field.alias}` | {_default(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "number of processors"
    value = field.default
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{', '.join(value) if isinstance(value, tuple) else f'{value:g}' if isinstance(value, float) else value}`"


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    told = []
    for each in field.metadata:
        for name, words in signs.items():
            if (bound := getattr(each, name, None)) is not None:
                told.append(f"{words} {bound}")
        if (length := getattr(each, "min_length", None)) is not None and length > 1:
            told.append(f"at least {length} characters")
    return ", ".join(told)


def _is_secret(field: FieldInfo) -> bool:
    def parts(kind: object) -> set[object]:
        return {kind}.union(*map(parts, get_args(kind)))

    return SecretStr in parts(field.annotation)


if __name__ == "__main__":
    PAGE.write_text(page())
