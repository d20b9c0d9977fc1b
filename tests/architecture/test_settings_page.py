"""docs/settings.md says what the settings classes say, and each of them says what it is for."""

from collections import Counter

from tests.fixtures.settings import settings_classes
from tests.settings_page import PAGE, page


def test_the_page_is_what_the_classes_say() -> None:
    assert PAGE.read_text() == page(), "run `make settings`"


def test_every_setting_has_one_variable_and_says_what_it_is() -> None:
    fields = [(kind, name, field) for kind in settings_classes() for name, field in kind.model_fields.items()]
    assert not [f"{kind.__name__}.{name}" for kind, name, field in fields if not field.alias or not field.description]
    assert not [alias for alias, count in Counter(field.alias for _, _, field in fields).items() if count > 1]
