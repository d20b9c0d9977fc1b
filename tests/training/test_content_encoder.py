"""Content of any schema becomes vectors that mean something, whatever is missing or odd."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.models.content_based.encoder import ContentEncoder, EncoderConfig
from training.models.content_based.fields import MetadataField, flatten, infer_fields, labels
from training.models.content_based.text import Tfidf, tokens

SHOP = [
    {
        "title": f"{kind} {colour} number {number}",
        "category": kind,
        "tags": [colour, "sale"] if number % 2 else [colour],
        "price": 10.0 * (number + 1) if kind == "shoe" else 900.0 + number,
        "shape": {"size": {"cm": 20 + number}},
    }
    for kind in ("shoe", "lamp")
    for colour in ("red", "blue")
    for number in range(10)
]


def cosine(encoder: ContentEncoder, one: dict, other: dict) -> float:
    first, second = encoder.transform([one, other])
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


@pytest.fixture(scope="module")
def encoder() -> ContentEncoder:
    return ContentEncoder().fit(SHOP)


def test_kinds_of_fields_are_told_by_their_values(encoder: ContentEncoder) -> None:
    assert {field.path: field.kind for field in encoder.fields} == {
        "title": "text",
        "category": "categorical",
        "tags": "categorical",
        "price": "numeric",
        "shape.size.cm": "numeric",
    }


def test_vectors_are_float32_of_the_promised_width(encoder: ContentEncoder) -> None:
    vectors = encoder.transform(SHOP)
    assert vectors.shape == (40, encoder.dimensions)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()


def test_like_is_near_like(encoder: ContentEncoder) -> None:
    assert cosine(encoder, SHOP[0], SHOP[1]) > cosine(encoder, SHOP[0], SHOP[10]) > cosine(encoder, SHOP[0], SHOP[30])


def test_a_new_item_is_placed_by_what_it_shares(encoder: ContentEncoder) -> None:
    lamp = {"category": "LAMP", "tags": ["blue"], "price": "905"}
    assert cosine(encoder, lamp, SHOP[35]) > cosine(encoder, lamp, SHOP[5])


def test_an_item_that_shares_nothing_has_a_zero_vector(encoder: ContentEncoder) -> None:
    assert not encoder.transform([{}])[0].any()
    assert not encoder.transform([{"unheard": "of", "title": "zzz"}])[0].any()


def test_order_of_keys_and_of_items_does_not_matter(encoder: ContentEncoder) -> None:
    turned = dict(reversed(SHOP[3].items()))
    np.testing.assert_array_equal(encoder.transform([turned, SHOP[0]])[0], encoder.transform([SHOP[3]])[0])


def test_a_saved_encoder_gives_equal_vectors(encoder: ContentEncoder, tmp_path) -> None:
    encoder.save(tmp_path)
    loaded = ContentEncoder.load(tmp_path)
    odd = [*SHOP, {"tags": ["green", 7, None], "price": "much"}]
    np.testing.assert_array_equal(loaded.transform(odd), encoder.transform(odd))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".npz"}


def test_wide_blocks_are_narrowed() -> None:
    narrow = ContentEncoder(EncoderConfig(text_dimensions=3, label_dimensions=4)).fit(SHOP)
    assert narrow.dimensions == 3 + 4 + 2
    assert cosine(narrow, SHOP[0], SHOP[1]) > cosine(narrow, SHOP[0], SHOP[30])


def test_a_fit_repeats_itself_under_its_seed() -> None:
    config = EncoderConfig(text_dimensions=3)
    first, second = (ContentEncoder(config).fit(SHOP, seed=5).transform(SHOP) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_an_empty_catalogue_is_refused_and_a_bare_one_is_not() -> None:
    with pytest.raises(ValueError, match="empty catalogue"):
        ContentEncoder().fit([])
    assert ContentEncoder().fit([{}, {}]).transform([{}, {"a": 1}]).shape == (2, 1)


def test_dates_addresses_and_identifiers_are_read_for_what_they_are() -> None:
    films = [
        {
            "released": f"{1950 + number}-03-01",
            "old_style": f"01-Jan-{1950 + number}",
            "page": f"https://films.example/{number}",
            "code": f"X{number}",
            "same": "yes",
            "genres": "Drama|War" if number % 2 else "Drama|Comedy",
        }
        for number in range(12)
    ]
    fields = {field.path: field for field in ContentEncoder().fit(films).fields}
    assert {path: field.kind for path, field in fields.items()} == {
        "released": "date",
        "old_style": "date",
        "genres": "categorical",
    }
    assert labels(fields["genres"], ["Drama|War"]) == ["drama", "war"]


def test_one_label_in_many_spellings_is_one_label() -> None:
    field = MetadataField(path="a", kind="categorical")
    assert labels(field, [1, 1.0, "1", " 1 "]) == ["1"]
    assert labels(field, ["Rock", "ROCK", True, "true"]) == ["rock", "true"]


def test_nested_objects_and_lists_of_objects_become_dotted_paths() -> None:
    item = {"a": {"b": {"c": 1}}, "people": [{"name": "Ann"}, {"name": "Bob"}], "none": None, "nan": float("nan")}
    assert flatten(item) == {"a.b.c": [1], "people.name": ["Ann", "Bob"]}


def test_keys_that_one_item_has_alone_are_not_read() -> None:
    items = [flatten({f"only-{number}": "x", "kind": "a" if number % 2 else "b"}) for number in range(10)]
    assert [field.path for field in infer_fields(items, max_fields=200)] == ["kind"]


def test_words_are_folded_and_scripts_without_spaces_are_paired() -> None:
    assert tokens("The CAFÉ, Straße!") == ["the", "café", "strasse"]
    assert tokens("東京タワー") == ["東京", "京タ", "タワ", "ワー"]


def test_rows_of_tfidf_weigh_rare_words_more_and_have_unit_length() -> None:
    documents = [["red", "shoe"], ["red", "lamp"], ["red", "lamp", "lamp"], ["shoe"]]
    tfidf = Tfidf.fit(documents, max_words=10, min_documents=2, max_share=0.8)
    assert list(tfidf.vocabulary) == ["lamp", "red", "shoe"]
    rows = tfidf.transform(documents).toarray()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    assert rows[0, 2] / rows[0, 1] == pytest.approx((1 + np.log(5 / 3)) / (1 + np.log(5 / 4)), rel=1e-5)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=12)
metadata = st.dictionaries(
    st.sampled_from(["title", "category", "tags", "price", "shape", "other"]),
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_size=5,
)


@given(item=metadata)
@settings(max_examples=150, deadline=None)
def test_any_metadata_gives_a_finite_vector(encoder: ContentEncoder, item: dict) -> None:
    assert np.isfinite(encoder.transform([item])).all()


@given(items=st.lists(metadata, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_any_catalogue_can_be_learned_and_saved(tmp_path_factory, items: list[dict]) -> None:
    encoder = ContentEncoder().fit(items)
    folder = tmp_path_factory.mktemp("encoder")
    encoder.save(folder)
    assert json.loads((folder / "encoder.json").read_text())
    np.testing.assert_array_equal(ContentEncoder.load(folder).transform(items), encoder.transform(items))
