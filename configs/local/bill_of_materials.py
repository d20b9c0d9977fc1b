"""`make sbom`: what a server runs, as a CycloneDX document (https://cyclonedx.org).

    python -m configs.local.bill_of_materials FILE LOCK...

`cyclonedx-py` describes what is installed: versions, licences, addresses, what depends on what. A development
environment has tools besides, which are left out: kept is what the locks name, and what depends on the build of torch.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from configs.local.vulnerabilities import locked_packages, normal_name


def of_packages(document: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The document with the components of these names alone, and what they depend on among each other.

    Raises LookupError where one of the names is not in the document.
    """
    kept = [each for each in document["components"] if normal_name(each["name"]) in names]
    if missing := names - {normal_name(each["name"]) for each in kept}:
        raise LookupError(f"not installed: {', '.join(sorted(missing))}")
    root = document["metadata"]["component"]["bom-ref"]
    known = {root, *(each["bom-ref"] for each in kept)}
    dependencies = [
        {**each, "dependsOn": [ref for ref in each.get("dependsOn", ()) if ref in known]}
        for each in document["dependencies"]
        if each["ref"] in known
    ]
    return {**document, "components": kept, "dependencies": dependencies}


def main() -> None:
    """Write the document of this environment to the file of the first argument."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    tool = str(Path(sys.executable).with_name("cyclonedx-py"))
    describe = [tool, "environment", "--pyproject", "pyproject.toml"]
    made = subprocess.run([*describe, sys.executable], capture_output=True, check=True)
    installed = locked_packages([Path(name) for name in sys.argv[2:]], here=True)
    document = of_packages(json.loads(made.stdout), {normal_name(name) for name, _ in installed})
    Path(sys.argv[1]).write_text(json.dumps(document, indent=2))
    print(f"{len(document['components'])} packages in {sys.argv[1]}", file=sys.stderr)


if __name__ == "__main__":
    main()
