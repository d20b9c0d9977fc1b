"""`make sbom` keeps of an environment what a server runs."""

from typing import Any

import pytest

from configs.local.bill_of_materials import of_packages

DOCUMENT: dict[str, Any] = {
    "bomFormat": "CycloneDX",
    "metadata": {"component": {"bom-ref": "root"}},
    "components": [
        {"bom-ref": "a", "name": "Some_Server", "version": "1"},
        {"bom-ref": "b", "name": "tool", "version": "2"},
        {"bom-ref": "c", "name": "library", "version": "3"},
    ],
    "dependencies": [
        {"ref": "root", "dependsOn": ["a", "b"]},
        {"ref": "a", "dependsOn": ["c"]},
        {"ref": "b", "dependsOn": ["c"]},
        {"ref": "c"},
    ],
}


def test_tools_and_what_depends_on_them_are_left_out() -> None:
    found = of_packages(DOCUMENT, {"some-server", "library"})
    assert [each["name"] for each in found["components"]] == ["Some_Server", "library"]
    assert found["dependencies"] == [
        {"ref": "root", "dependsOn": ["a"]},
        {"ref": "a", "dependsOn": ["c"]},
        {"ref": "c", "dependsOn": []},
    ]
    assert found["bomFormat"] == "CycloneDX"


def test_a_locked_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(LookupError, match="absent"):
        of_packages(DOCUMENT, {"library", "absent"})
