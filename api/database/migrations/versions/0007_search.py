"""Search over items: words by their English stems, and any part of scripts that are written without spaces.

What is indexed is the metadata's text in one normal form, in which each run of such a script is spelled as its pairs
of neighbouring characters: "日本の" as the words "日本", "本の" and "の". A search for a part of it asks for the pairs
of that part. The rules are functions in the database, so that the same rules hold for items and searches, whichever
code writes the items.

Revision: 0007
"""

from alembic import op
from sqlalchemy import text

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Thai, Lao, Tibetan, Burmese, Hangul, Khmer, the Tai scripts, Balinese, kana, bopomofo, Han, Javanese.
UNSPACED = (
    r"\u0e00-\u109f\u1100-\u11ff\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\u3005-\u3007\u3040-\u318f"
    r"\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua980-\ua9ff\uaa60-\uaadf\uac00-\ud7ff\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
INVISIBLE = r"\u00ad\u200b-\u200f\u2060\ufeff"
WHOLE = 60_000
"""So many characters of any script fit a tsvector, which PostgreSQL limits to a megabyte."""
COLLATIONS = ("pg_c_utf8", "und-x-icu", "default")
"""Collations that know letters beyond ASCII, best first: built in from PostgreSQL 17, ICU's, the database's own."""

DICTIONARIES = (
    # English without stop words, so that an item named "It" is found. Searches for other words drop stop words anyway.
    "CREATE TEXT SEARCH DICTIONARY item_stem (TEMPLATE = snowball, LANGUAGE = english)",
    "CREATE TEXT SEARCH CONFIGURATION item_text (COPY = english)",
    "ALTER TEXT SEARCH CONFIGURATION item_text ALTER MAPPING REPLACE english_stem WITH item_stem",
)

# Punctuation beyond ASCII separates words, except for the dot between the syllables of a Tibetan word.
NORMAL = r"""
CREATE FUNCTION search_normal(value text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN regexp_replace(
    regexp_replace(lower(normalize(value, NFKC) COLLATE "{collation}"), '[{invisible}]', '', 'g'),
    '(?=[^\u0001-\u007f\u0f0b])[[:punct:][:space:]]' COLLATE "{collation}", ' ', 'g'
)
"""

SPELLED = """
CREATE FUNCTION search_spelled(normal text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE WHEN normal !~ '[{unspaced}]' THEN normal ELSE (
    SELECT string_agg(
        CASE
            WHEN character !~ '[{unspaced}]' THEN character
            WHEN next ~ '[{unspaced}]' THEN ' ' || character || next || ' '
            ELSE ' ' || character || ' '
        END, '' ORDER BY place
    )
    FROM (
        SELECT character, place, lead(character) OVER (ORDER BY place) AS next
        FROM unnest(string_to_array(normal, NULL)) WITH ORDINALITY AS each (character, place)
    ) AS pairs
) END
"""

# Most items take the first branch. For ASCII it gives the same result as the second, in less time.
VECTOR = """
CREATE FUNCTION item_search(metadata jsonb) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path FROM CURRENT AS $$
DECLARE
    whole text := metadata::text;
    parts jsonb;
BEGIN
    IF octet_length(whole) = length(whole) AND length(whole) <= {whole} THEN
        RETURN jsonb_to_tsvector('item_text', metadata, '["string", "numeric"]');
    END IF;
    SELECT coalesce(jsonb_agg(search_spelled(search_normal(part #>> '{{}}'))), '[]') INTO parts
    FROM jsonb_path_query(metadata, 'strict $.**') AS part
    WHERE jsonb_typeof(part) = 'string' OR jsonb_typeof(part) = 'number' AND length(part::text) <= 64;
    BEGIN
        RETURN jsonb_to_tsvector('item_text', parts, '["string"]');
    EXCEPTION WHEN program_limit_exceeded THEN
        RETURN to_tsvector('item_text', left(parts::text, {whole}));
    END;
END $$
"""

RUNS = """
CREATE FUNCTION search_runs(search text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN ARRAY(SELECT found[1] FROM regexp_matches(search_normal(search), '[{unspaced}]+', 'g') AS found)
"""

QUERY = """
CREATE FUNCTION search_query(search text) RETURNS tsquery LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    words text := regexp_replace(search_normal(search), '[{unspaced}]+', ' ', 'g');
    wanted tsquery := websearch_to_tsquery('english', words);
    run text;
BEGIN
    IF numnode(wanted) = 0 THEN
        wanted := websearch_to_tsquery('item_text', words);
    END IF;
    FOREACH run IN ARRAY search_runs(search) LOOP
        IF length(run) = 1 THEN
            wanted := wanted && (quote_literal(run) || ':*')::tsquery;
        ELSE
            wanted := wanted && plainto_tsquery('item_text', left(search_spelled(run), -3));
        END IF;
    END LOOP;
    RETURN wanted;
END $$
"""

PHRASES = """
CREATE FUNCTION search_phrases(search text) RETURNS tsquery LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    wanted tsquery := '';
    run text;
BEGIN
    FOREACH run IN ARRAY search_runs(search) LOOP
        IF length(run) > 2 THEN
            wanted := wanted && phraseto_tsquery('item_text', left(search_spelled(run), -3));
        END IF;
    END LOOP;
    RETURN wanted;
END $$
"""

HOLDS = """
CREATE FUNCTION item_holds(metadata jsonb, runs text[]) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN NOT EXISTS (
    SELECT FROM unnest(runs) AS run WHERE NOT EXISTS (
        SELECT FROM jsonb_path_query(metadata, 'strict $.**') AS part
        WHERE jsonb_typeof(part) = 'string' AND position(run IN search_normal(part #>> '{{}}')) > 0
    )
)
"""

FUNCTIONS = (
    "item_holds(jsonb, text[])",
    "search_phrases(text)",
    "search_query(text)",
    "search_runs(text)",
    "item_search(jsonb)",
    "search_spelled(text)",
    "search_normal(text)",
)


def upgrade() -> None:
    for statement in DICTIONARIES:
        op.execute(statement)
    known = op.get_bind().execute(
        text("SELECT collname FROM pg_collation WHERE collname = ANY(:names)"), {"names": list(COLLATIONS)}
    )
    collation = min((name for (name,) in known), key=COLLATIONS.index)
    for definition in (NORMAL, SPELLED, VECTOR, RUNS, QUERY, PHRASES, HOLDS):
        _run(definition.format(collation=collation, unspaced=UNSPACED, invisible=INVISIBLE, whole=WHOLE))
    _index("item_search(metadata)")


def downgrade() -> None:
    _index("""jsonb_to_tsvector('english'::regconfig, metadata, '["string", "numeric"]'::jsonb)""")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
    op.execute("DROP TEXT SEARCH CONFIGURATION item_text")
    op.execute("DROP TEXT SEARCH DICTIONARY item_stem")


def _index(expression: str) -> None:
    op.execute("ALTER TABLE items DROP COLUMN search")
    _run(f"ALTER TABLE items ADD COLUMN search tsvector GENERATED ALWAYS AS ({expression}) STORED")
    op.execute("CREATE INDEX items_search_idx ON items USING gin (search)")


def _run(statement: str) -> None:
    """Execute the statement as it is written: `op.execute` would read a colon in it as a parameter."""
    op.get_bind().exec_driver_sql(statement)
