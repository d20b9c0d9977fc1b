"""`search` over HTTP: English by stems, unspaced scripts by any part, all of it through the index."""

import json
import unicodedata
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from feature_store.metadata import MAX_BYTES
from tests.fixtures.backend import Backend, running_backend

UNSPACED = {
    "Han": "千里之行始於足下",
    "Japanese": "進撃の巨人スターウォーズ",
    "Korean": "기생충은한국영화다",
    "Thai": "องค์บากเป็นภาพยนตร์ไทย",
    "Lao": "ສະບາຍດີຫຼວງພະບາງ",
    "Khmer": "ភាពយន្តខ្មែរ",
    "Burmese": "မြန်မာရုပ်ရှင်",
    "Tibetan": "བོད་ཀྱི་གློག་བརྙན",
    "beyond the basic plane": "𠀀𠀁𠮷野家で𩸽を",
}


def found(backend: Backend, search: str, **more: Any) -> list[str]:
    """Ids of the items that match, best first."""
    response = backend.client.get("/api/items", params={"search": search, "pageSize": 100, **more})
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["total"] == len(body["data"])
    return [item["id"] for item in body["data"]]


FILMS = {
    "runs": {"title": "She runs", "flag": True},
    "deep": {"a": {"b": [{"colour": "Leather case"}, "Headphones"]}, "price": 149.99},
    "list": {"tags": ["headphones", "X-900"], "year": 1999},
    "band": {"title": "The Who"},
    "it": {"title": "It"},
    "upper": {"title": "CAFÉ"},
    "decomposed": {"title": unicodedata.normalize("NFD", "café")},
    "russian": {"title": "Москва слезам не верит"},
    "greek": {"title": "Αθηνα"},
    "quotes": {"title": "“Hello”—World…"},
    "hindi": {"title": "हिन्दी सिनेमा"},
}
SEARCHES: list[tuple[str, set[str]]] = [
    ("run", {"runs"}),
    ("running", {"runs"}),
    ("RUNNERS ran", set()),
    ("headphone case", {"deep"}),
    ("case headphones", {"deep"}),
    ("headphones for a case", {"deep"}),  # words that every text has are left out of a search
    ('"leather case"', {"deep"}),
    ('"case leather"', set()),
    ("headphones -leather", {"list"}),
    ("leather or runs", {"deep", "runs"}),
    ("149.99", {"deep"}),
    ("1999", {"list"}),
    ("x-900", {"list"}),
    ("the who", {"band"}),  # and yet they are found where they are all there is
    ("it", {"it"}),
    ("café", {"upper", "decomposed"}),
    ("CAFÉ", {"upper", "decomposed"}),
    ("москва", {"russian"}),
    ("ΑΘΗΝΑ", {"greek"}),
    ("hello", {"quotes"}),
    ("world", {"quotes"}),
    ("हिन्दी", {"hindi"}),
    ("true", set()),  # a flag is no text
    ("colour", set()),  # nor is a key
    ("!?", set()),
    ("':* & | ! <-> \\", set()),
]


def test_words_are_found_anywhere_in_the_metadata(backend: Backend) -> None:
    backend.add_items(FILMS)
    assert {search: set(found(backend, search)) for search, _ in SEARCHES} == dict(SEARCHES)
    assert set(found(backend, "")) == set(found(backend, "  ")) == set(FILMS)


@pytest.mark.parametrize("script", UNSPACED)
def test_any_part_of_two_or_more_characters_of_an_unspaced_script_is_found(backend: Backend, script: str) -> None:
    text = UNSPACED[script]
    backend.add_items({"it": {"title": text, "year": 1999}, "other": {"title": text[::-1]}, "none": {"title": "film"}})
    for length in (2, 3, 4, len(text)):
        for start in range(len(text) - length + 1):
            part = text[start : start + length]
            expected = {id_ for id_, title in (("it", text), ("other", text[::-1])) if part in title}
            assert set(found(backend, part)) == expected, part


def test_one_character_of_an_unspaced_script_is_found_too(backend: Backend) -> None:
    backend.add_items({"it": {"title": "黒猫だ"}})
    assert [found(backend, character) for character in "黒猫だ犬"] == [["it"], ["it"], ["it"], []]


def test_parts_are_found_beside_other_scripts_and_each_must_be_there(backend: Backend) -> None:
    backend.add_items(
        {
            "phone": {"title": "iPhone手机壳2024新款", "brand": {"name": "苹果"}},
            "film": {"title": "スター・ウォーズ エピソードIV"},
            "split": {"a": "新", "b": "款手", "c": "机"},
        }
    )
    assert found(backend, "手机壳") == ["phone"]
    assert found(backend, "iphone") == ["phone"]
    assert found(backend, "2024") == ["phone"]
    assert found(backend, "iPhone 手机 苹果") == ["phone"]
    assert found(backend, "samsung 手机") == []
    assert found(backend, "手机 香蕉") == []
    assert found(backend, "ウォーズ スター") == ["film"]
    assert found(backend, "ｽﾀｰ") == ["film"]  # half-width, as some keyboards write it
    assert found(backend, "新款") == ["phone"]  # not what stands at the ends of two texts
    assert found(backend, "款手机") == []


def test_pairs_in_another_order_are_no_match(backend: Backend) -> None:
    backend.add_items({"it": {"title": "日本画と本日"}})
    assert found(backend, "本画") == ["it"]
    assert found(backend, "本日本") == []  # 本日 and 日本 are both there, apart
    assert found(backend, "日本日") == []


LONG = "あいうえおかきくけこ" * 2_500
"""So long that the index neither counts on to its end nor keeps every place of a pair."""


def _store(backend: Backend, id_: str, metadata: dict[str, Any]) -> None:
    """Store an item as an earlier version did, which took larger metadata."""
    insert = "INSERT INTO items (tenant_id, id, metadata, version) VALUES ('shop', %s, %s, 1)"
    backend.sql(insert, [id_, json.dumps(metadata)])


def test_the_end_of_a_long_text_is_found(backend: Backend) -> None:
    _store(backend, "long", {"text": LONG + "さかいめ終", "tail": "しっぽ"})
    _store(backend, "other", {"text": LONG})
    assert found(backend, "さかいめ終") == ["long"]
    assert found(backend, "こさかい") == ["long"]
    assert found(backend, "しっぽ") == ["long"]
    assert found(backend, "けこさしす") == []
    assert found(backend, "けこあいう") == ["long", "other"]


CHARACTERS = st.sampled_from("日本語の映画ก็ไม่เป็นไร한국어𠮷野") | st.characters(
    min_codepoint=0x4E00, max_codepoint=0x4E20
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), text=st.text(CHARACTERS, min_size=2, max_size=12))
def test_whatever_the_text_its_parts_are_found(backend: Backend, data: st.DataObject, text: str) -> None:
    start = data.draw(st.integers(0, len(text) - 2))
    part = text[start : data.draw(st.integers(start + 2, len(text)))]
    other = data.draw(st.text(CHARACTERS, min_size=2, max_size=4))
    with psycopg.connect(backend.url) as connection:
        normal = connection.execute("SELECT search_normal(%s), search_normal(%s)", [text, other]).fetchone()
    assert normal is not None
    backend.sql("DELETE FROM items")
    backend.add_items({"it": {"title": f"A {text}!"}})
    assert found(backend, part) == ["it"]
    assert found(backend, other) == (["it"] if normal[1] in normal[0] else [])


def test_the_best_match_comes_first(backend: Backend) -> None:
    backend.add_items(
        {
            "a": {"title": "tea and many other words", "text": "more words"},
            "b": {"title": "tea tea tea"},
            "c": {"title": "映画 の 音楽 と 物語"},
            "d": {"title": "映画映画映画"},
        }
    )
    assert found(backend, "tea") == ["b", "a"]
    assert found(backend, "映画") == ["d", "c"]


def test_pages_of_a_search_cover_it_once(backend: Backend) -> None:
    backend.add_items({f"i{number}": {"title": f"tea {'tea ' * (number % 3)}映画"} for number in range(7)})
    for search in ("tea", "映画", "tea 映画"):
        pages = [
            backend.client.get("/api/items", params={"search": search, "page": page, "pageSize": 3}).json()
            for page in (1, 2, 3)
        ]
        ids = [item["id"] for page in pages for item in page["data"]]
        assert (len(ids), len(set(ids))) == (7, 7)
        assert {page["total"] for page in pages} == {7}


def test_what_was_edited_or_deleted_is_found_as_it_is_now(backend: Backend) -> None:
    backend.add_items({"it": {"title": "映画 film"}})
    backend.client.patch("/api/items/it", json={"metadata": {"title": "音楽 song"}}).raise_for_status()
    assert [found(backend, word) for word in ("映画", "film", "音楽", "song")] == [[], [], ["it"], ["it"]]
    backend.client.delete("/api/items/it").raise_for_status()
    assert found(backend, "音楽") == []


def test_another_tenants_items_are_not_found(open_client: Any, tenants: Any) -> None:
    with running_backend(open_client, tenants, "one") as one, running_backend(open_client, tenants, "two") as two:
        one.add_items({"same": {"title": "映画 tea"}})
        two.add_items({"same": {"title": "音楽 salt"}})
        assert [found(two, word) for word in ("映画", "tea", "音楽", "salt")] == [[], [], ["same"], ["same"]]


def _han(count: int) -> str:
    return "".join(chr(0x4E00 + (number * 7919) % 20_000) for number in range(count))


EARLIER_MAX_BYTES = 256 * 1024
"""What one item's metadata could hold before the bound became `MAX_BYTES`."""
LARGEST = {
    "Han": _han(87_000),
    "beyond the basic plane": "".join(chr(0x20000 + (number * 7919) % 40_000) for number in range(65_000)),
    "numbers of 300 digits": [float(f"1.{number}e300") for number in range(10_000, 28_000)],
    "numbers of 19 digits": [float(f"1.{number}e18") for number in range(10_000, 32_000)],
    "words between hyphens": " ".join(f"{number:x}-{number + 1:x}b" for number in range(60_000, 80_000)),
    "addresses": " ".join(f"h{number:x}.co/p{number:x}" for number in range(60_000, 76_000)),
    "one letter": "映" * 87_000,
    "letters that fold out": "\ufdfa" * 87_000,
}


@pytest.mark.parametrize("kind", LARGEST)
def test_the_largest_metadata_of_an_earlier_version_is_served_and_searched(backend: Backend, kind: str) -> None:
    metadata = {"zzz": LARGEST[kind], "title": "needle"}
    size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode())
    assert size > 0.8 * EARLIER_MAX_BYTES > MAX_BYTES
    _store(backend, "large", metadata)
    assert found(backend, "needle") == ["large"]
    assert backend.client.get("/api/items/large").json()["metadata"].keys() == metadata.keys()
    hidden = backend.client.patch("/api/items/large", json={"isActive": False})
    assert (hidden.status_code, hidden.json()["isActive"]) == (200, False)
    assert backend.client.patch("/api/items/large", json={"metadata": {"a": 1}}).status_code == 400
    assert backend.client.patch("/api/items/large", json={"metadata": {"zzz": None}}).status_code == 200


def test_past_what_the_index_can_hold_the_beginning_is_found(backend: Backend) -> None:
    """Nothing that the API takes is so large; whoever writes to the database may."""
    pairs = "".join(chr(0x4E00 + number % 20_000) + chr(0x20000 + number) for number in range(40_000))
    _store(backend, "huge", {"a": "needle", "text": pairs + _han(90_000)})
    assert found(backend, "needle") == ["huge"]


ROWS = 60_000


def test_a_search_reads_the_index_and_not_the_table(backend: Backend) -> None:
    backend.sql(
        """
        INSERT INTO items (tenant_id, id, metadata, version)
        SELECT 'shop', 'i' || n, jsonb_build_object('title', 'Item number ' || n || ' of ' || mod(n, 1000) || 'x',
            'text', chr(19968 + mod(n, 5000)) || chr(19968 + n / 5000) || '映画', 'kind', 'thing'), 1
        FROM generate_series(1, %s) AS n
        """,
        [ROWS],
    )
    backend.sql("VACUUM ANALYZE items")
    statements: list[tuple[str, Any]] = []
    engine = backend.client.app.state.database.engine.sync_engine  # type: ignore[attr-defined]

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        statements.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    searches = {
        "12345": 1,
        "number 777x": ROWS // 1000,
        chr(19968 + 33) + chr(19968 + 7): 1,
        chr(19968 + 7) + "映画": 5_000,
    }
    for search, total in searches.items():
        statements.clear()
        body = backend.client.get("/api/items", params={"search": search}).json()
        assert body["total"] == total
        about_items = [each for each in statements if "items.search" in each[0]]
        assert len(about_items) == 2  # the page and how many there are
        for statement, parameters in about_items:
            with psycopg.connect(backend.url) as connection:
                plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {statement}", parameters))
            assert "items_search_idx" in plan and "Seq Scan" not in plan, plan
