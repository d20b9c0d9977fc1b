"""SQL of mapped columns: the typed value of each, and the first reason to reject a row for it."""

from dataclasses import dataclass

from feature_store import columns as c
from feature_store.loaders.mapping import ColumnSource, TimestampSource
from feature_store.loaders.problems import ImportRefusedError
from feature_store.loaders.readers import Staged, literal

INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
NUMBERS = INTEGERS | {"FLOAT", "DOUBLE"}
INSTANTS = {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"}
NAIVE_TIMES = {"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE"}
EMPTY = '"NULL"'
"""The type of a Parquet column that holds only nulls."""
SMALLEST_EPOCH = "1e8"
"""Smaller numbers of seconds are before 1973. They are more likely a year, or a date without dashes."""
_DATE_TIME = r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?"
_NAIVE = rf"({_DATE_TIME}|\d{{4}}-\d{{2}}-\d{{2}})"
_ABSOLUTE = rf"{_DATE_TIME} ?([Zz]|[+-](0\d|1[0-8])(:?[0-5]\d)?)"
_NUMBER = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"


@dataclass(frozen=True)
class Column:
    """A mapped column: its name to a reader, its value, and checks as (condition that is TRUE for a bad row, reason).

    Both halves of a check are SQL over the staged table; a reason is a text expression that names no person.
    """

    name: str
    value: str
    checks: tuple[tuple[str, str], ...] = ()

    def problem(self) -> str:
        """SQL of a struct {column, reason}; NULL where the row is valid."""
        cases = " ".join(f"WHEN {bad} THEN {reason}" for bad, reason in self.checks)
        if not cases:
            return "NULL"
        found = f"{{'column': {literal(self.name)}, 'reason': CASE {cases} END}}"
        return f"CASE WHEN {' OR '.join(f'({bad})' for bad, _ in self.checks)} THEN {found} END"


@dataclass(frozen=True)
class Raw:
    """The value of a source before it is converted to its type."""

    name: str
    sql: str
    type: str

    @property
    def text(self) -> str:
        """SQL of the value as text."""
        return f"({self.sql} ->> '$')" if self.type == "JSON" else f"CAST({self.sql} AS VARCHAR)"

    @property
    def absent(self) -> str:
        """SQL that is true of an empty cell: NULL, JSON null, or empty text."""
        return f"coalesce({self.text}, '') = ''"


def missing(staged: Staged, column: str, purpose: str, where: str) -> str:
    """The message for a column that the file does not have."""
    return (
        f"{staged.file}: has no column {column!r} for {purpose}; it has {', '.join(staged.columns) or 'none'}. "
        f"Rename it, or name another under `{where}` in the mapping"
    )


def id_column(staged: Staged, source: Raw, purpose: str) -> Column:
    """An opaque id: text or a whole number, by the API's rule for ids."""
    if source.type not in {"VARCHAR", "JSON"} | INTEGERS:
        raise ImportRefusedError(
            f"{staged.file}: column {source.name!r} is {source.type}, and {purpose} is text or a whole number; "
            "convert the column, or map it with `sql: CAST(... AS VARCHAR)`"
        )
    text, longest = source.text, c.MAX_ID_LENGTH
    checks = [(source.absent, literal(f"is empty; {purpose} is needed"))]
    if source.type == "JSON":
        checks.append(
            (
                f"json_type({source.sql}) NOT IN ('VARCHAR', 'BIGINT', 'UBIGINT')",
                literal(f"is neither text nor a whole number; {purpose} must be"),
            )
        )
    checks += [
        (f"length({text}) > {longest}", f"'has ' || length({text}) || ' characters; an id has at most {longest}'"),
        (f"regexp_matches({text}, '\\p{{Cc}}')", literal("holds a control character; remove it")),
    ]
    return Column(source.name, text, tuple(checks))


def type_column(source: Raw, words: dict[str, str]) -> Column:
    """An interaction type, after the mapping has translated the file's words."""
    known = ", ".join(c.INTERACTION_TYPES)
    cases = " ".join(f"WHEN {literal(word)} THEN {literal(type_)}" for word, type_ in words.items())
    value = f"CASE {source.text} {cases} ELSE {source.text} END" if cases else source.text
    allowed = ", ".join(map(literal, c.INTERACTION_TYPES))
    advice = f"; must be {known}; translate other words with `map`"
    reason = f"coalesce('is ''' || left(nullif({value}, ''), 40) || '''', 'is empty') || {literal(advice)}"
    return Column(source.name, value, ((f"coalesce({value}, '') NOT IN ({allowed})", reason),))


def value_column(staged: Staged, source: Raw) -> Column:
    """A weight in [0, 1], or null."""
    if source.type == EMPTY:
        return Column(source.name, "CAST(NULL AS FLOAT)")
    if source.type not in {"VARCHAR", "JSON"} | NUMBERS and not source.type.startswith("DECIMAL"):
        raise ImportRefusedError(
            f"{staged.file}: column {source.name!r} is {source.type}, and a value is a number from 0 to 1; "
            "convert the column, or map it with `sql:`"
        )
    number = f"TRY_CAST({source.text} AS DOUBLE)"
    shown = f"'is ''' || left({source.text}, 40) || '''; a value is a number from 0 to 1'"
    bad = f"NOT {source.absent} AND NOT coalesce({number} BETWEEN 0 AND 1, FALSE)"
    return Column(source.name, f"CAST({number} AS FLOAT)", ((bad, shown),))


def timestamp_column(staged: Staged, source: Raw, mapping: TimestampSource, mixed: bool) -> Column:
    """An absolute time. mixed: whether the file has times with an offset and times without."""
    zone = literal(mapping.timezone) if mapping.timezone else None
    doubtful: tuple[tuple[str, str], ...] = ()
    if source.type in INSTANTS:
        value, bad, reason = f"CAST({source.sql} AS TIMESTAMPTZ)", "FALSE", "''"
    elif source.type in NAIVE_TIMES:
        if zone is None:
            raise ImportRefusedError(
                f"{staged.file}: column {source.name!r} is {source.type}, which has no time zone; say which it is, "
                "such as `timestamp: {column: " + source.name + ", timezone: UTC}` in the mapping"
            )
        value, bad, reason = f"timezone({zone}, CAST({source.sql} AS TIMESTAMP))", "FALSE", "''"
    elif source.type in {"VARCHAR", "JSON"} | NUMBERS:
        text = f"trim({source.text})"
        number = f"regexp_full_match({text}, '{_NUMBER}')"
        absolute = f"regexp_full_match({text}, '{_ABSOLUTE}')"
        naive = f"regexp_full_match({text}, '{_NAIVE}')"
        joined = rf"regexp_replace({text}, ' ([+-]\d{{2}}(:?\d{{2}})?|[Zz])$', '\1')"
        local = f"timezone({zone}, TRY_CAST({text} AS TIMESTAMP))" if zone else "NULL"
        value = (
            f"CASE WHEN {number} THEN {_epoch(f'TRY_CAST({text} AS DOUBLE)', mapping.unit)} "
            f"WHEN {absolute} THEN TRY_CAST({joined} AS TIMESTAMPTZ) WHEN {naive} THEN {local} END"
        )
        others = ", though other rows have one" if mixed else ""
        reason = (
            f"CASE WHEN {naive} AND {'TRUE' if zone is None else 'FALSE'} THEN left({text}, 40) || "
            + literal(
                f" has no UTC offset{others}; write it like 2025-01-31T10:00:00Z, or declare `timezone` under "
                "`interactions.timestamp` in the mapping"
            )
            + f" ELSE 'is ''' || left({text}, 40) || '''; write a time like 2025-01-31T10:00:00Z or an epoch' END"
        )
        bad = f"({value}) IS NULL"
        if mapping.unit is None:
            read = f"TRY_CAST({text} AS DOUBLE)"
            advice = "; write a time like 2025-01-31T10:00:00Z, or declare `unit` where it is an epoch before 1973"
            shown = f"'is ' || left({text}, 40) || {literal(advice)}"
            doubtful = ((f"{number} AND {read} >= 0 AND {read} < {SMALLEST_EPOCH}", shown),)
    else:
        raise ImportRefusedError(
            f"{staged.file}: column {source.name!r} is {source.type}, and a timestamp is a time or an epoch; "
            "convert the column, or map it with `sql:`"
        )
    checks = (
        (source.absent, literal("is empty; a timestamp is needed")),
        (bad, reason),
        *doubtful,
        (f"({value}) > now() + {c.CLOCK_TOLERANCE}", literal("lies in the future; check its unit and time zone")),
        (f"({value}) < TIMESTAMPTZ '1970-01-01 00:00:00Z'", literal("lies before 1970; check its unit")),
    )
    return Column(source.name, value, checks)


def offsets_in(source: Raw) -> str:
    """SQL of two aggregates: whether any text has an offset, and whether any lacks one."""
    text = f"trim({source.text})"
    return f"bool_or(regexp_full_match({text}, '{_ABSOLUTE}')), bool_or(regexp_full_match({text}, '{_NAIVE}'))"


def _epoch(number: str, unit: str | None) -> str:
    scale = {"s": "1e6", "ms": "1e3", "us": "1"}
    if unit is not None:
        factor = scale[unit]
    else:
        # 1e11 seconds are the year 5138 and 1e11 milliseconds are 1973, so the size tells the unit of any date between.
        factor = f"CASE WHEN abs({number}) < 1e11 THEN 1e6 WHEN abs({number}) < 1e14 THEN 1e3 ELSE 1 END"
    micros = f"({number} * ({factor}))"
    return f"CASE WHEN abs({micros}) < 9e17 THEN make_timestamptz(CAST(round({micros}) AS BIGINT)) END"


def metadata_column(source: Raw, mapping: ColumnSource, kind: str | None) -> Column:
    """A field of an item's metadata as JSON text, NULL where the file has nothing.

    kind: what text is read as; None keeps the file's own type.
    """
    if kind is None:
        return Column(source.name, f"CAST({_as_json(source)} AS VARCHAR)")
    text, present = source.text, f"NOT {source.absent}"
    targets = {"integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN"}
    if kind in targets:
        read = f"TRY_CAST({text} AS {targets[kind]})"
        bad = f"{read} IS NULL" + (f" OR NOT isfinite({read})" if kind == "number" else "")
        reason = f"'is ''' || left({text}, 40) || ''', which is no {kind}; correct it or declare another type for it'"
        return Column(source.name, f"CAST(to_json({read}) AS VARCHAR)", ((f"{present} AND ({bad})", reason),))
    if kind == "json":
        invalid = (f"{present} AND NOT json_valid({text})", literal("is no JSON"))
        return Column(source.name, f"CASE WHEN {present} THEN {text} END", (invalid,))
    value = f"to_json({text})"
    if kind == "list":
        parts = f"list_transform(string_split({text}, {literal(mapping.separator)}), lambda part: trim(part))"
        value = f"to_json(list_filter({parts}, lambda part: part <> ''))"
    return Column(source.name, f"CASE WHEN {present} THEN CAST({value} AS VARCHAR) END")


def object_column(staged: Staged, source: Raw) -> Column:
    """A column that holds the whole metadata of an item."""
    if source.type not in {"VARCHAR", "JSON"} and not source.type.startswith(("STRUCT", "MAP")):
        raise ImportRefusedError(
            f"{staged.file}: column {source.name!r} is {source.type}, and metadata is a JSON object; "
            "name another column under `items.metadata` in the mapping"
        )
    if source.type == "VARCHAR":
        bad = f"NOT {source.absent} AND NOT json_valid({source.text})"
        value = f"CASE WHEN {source.absent} THEN '{{}}' ELSE {source.text} END"
        return Column(source.name, value, ((bad, literal("is no JSON object")),))
    return Column(source.name, f"coalesce(CAST({_as_json(source)} AS VARCHAR), '{{}}')")


def flag_column(source: Raw) -> Column:
    """A boolean, or null."""
    read = f"TRY_CAST({source.text} AS BOOLEAN)"
    reason = f"'is ''' || left({source.text}, 40) || '''; must be true or false'"
    return Column(source.name, read, ((f"NOT {source.absent} AND {read} IS NULL", reason),))


def _as_json(source: Raw) -> str:
    if source.type == "JSON":
        return source.sql
    if source.type in {"FLOAT", "DOUBLE"}:  # data frames write NaN for a missing value
        return f"CASE WHEN isfinite({source.sql}) THEN to_json({source.sql}) END"
    return f"to_json({source.sql})"


def metadata_type(source: Raw) -> str:
    """SQL of an aggregate: the type of the values of a text column (integer, number, boolean, else text).

    A whole number with a leading zero is text, since it is a code.
    """

    def every(pattern: str) -> str:
        return f"bool_and(regexp_full_match({source.text}, '{pattern}')) FILTER (NOT {source.absent})"

    return (
        f"CASE WHEN {every('-?(0|[1-9][0-9]{0,17})')} THEN 'integer' "
        f"WHEN {every('-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]{1,2})?')} THEN 'number' "
        f"WHEN {every('(?i)true|false')} THEN 'boolean' ELSE 'text' END"
    )
