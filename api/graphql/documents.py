"""Bounds what a GraphQL document costs, on its text and syntax tree, before it is validated and executed.

Fragments can make a short document expand to a huge one: twenty fragments that each spread the next one twice expand
to a million fields. So the bounds hold for the expanded document. Each fragment is measured once.

Validation compares each field with every other of the same name in its selection, and each fragment with every other.
So these pairs are bounded too: `{ getApiVersion getApiVersion ... }` with 499 fields took 0.2 s to validate.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
)

from api.http.problems import Invalid


@dataclass(frozen=True, slots=True)
class DocumentBounds:
    """The most that a document may have."""

    length: int  # characters; tokens do not bound comments and long tokens
    tokens: int
    depth: int
    aliases: int
    fields: int
    fragments: int
    comparisons: int  # pairs of fields that may mean different things under one name


WITH_CREDENTIAL = DocumentBounds(100_000, tokens=600, depth=20, aliases=15, fields=500, fragments=30, comparisons=1_000)
"""The introspection query of common tools has 15 levels, 190 tokens and 470 fields; this schema's operations need 2
levels."""
WITHOUT_CREDENTIAL = DocumentBounds(2_000, tokens=100, depth=5, aliases=5, fields=20, fragments=3, comparisons=50)
"""Only two fields are public: `getApiVersion` and `getHealth`."""
_TOKENS = re.compile(
    r'"""(?:\\"""|(?!""").)*+(?:""")?|"(?:\\.|[^"\\\n\r])*+"?'
    r"|#[^\n\r]*+|[_A-Za-z][_0-9A-Za-z]*+|\.{3}|[!$&()*:=@\[\]{|}]|-?\d[\d.eE+-]*+",
    re.DOTALL,
)
"""A comment or a token: a string, a name, a punctuator or a number. Also where a string has no end, it is read once."""
_INTROSPECTION = re.compile(r"\b__(?:schema|type)\b")


@dataclass(frozen=True, slots=True)
class Extent:
    """The size of an expanded selection."""

    fields: int = 0
    aliases: int = 0
    depth: int = 0

    def plus(self, other: "Extent") -> "Extent":
        return Extent(self.fields + other.fields, self.aliases + other.aliases, max(self.depth, other.depth))

    def within_field(self, aliased: bool) -> "Extent":
        """The extent of a field with this selection inside it."""
        return Extent(self.fields + 1, self.aliases + aliased, self.depth + 1)


def check_text(query: str, bounds: DocumentBounds) -> None:
    """Raises Invalid for a text that is too long to parse.

    The parser has the same bound on tokens, but reaches it after building a node for each.
    """
    if len(query) > bounds.length:
        raise Invalid.field("query", f"has more than {bounds.length:,} characters")
    tokens = (found for found in _TOKENS.finditer(query) if query[found.start()] != "#")
    if next(islice(tokens, bounds.tokens, None), None) is not None:
        raise Invalid.field("query", f"has more than {bounds.tokens} tokens")


def asks_for_schema(query: str) -> bool:
    """Whether a document may hold an introspection of the schema, which needs a credential."""
    return _INTROSPECTION.search(query) is not None


def check(document: DocumentNode, operation_name: str | None, bounds: DocumentBounds) -> None:
    """Raises Invalid where the document exceeds a bound, or has several operations and `operation_name` is missing."""
    operations = [part for part in document.definitions if isinstance(part, OperationDefinitionNode)]
    if operation_name is None and len(operations) > 1:
        raise Invalid.field("operationName", "must name one of the document's operations")
    extent = extent_of(document)
    for what, amount, limit in (
        ("aliases", extent.aliases, bounds.aliases),
        ("levels of fields", extent.depth, bounds.depth),
        ("fields", extent.fields, bounds.fields),
        ("fragments", len(document.definitions) - len(operations), bounds.fragments),
    ):
        if amount > limit:
            raise Invalid.field("query", f"has more than {limit} {what}")
    if comparisons_of(document) > bounds.comparisons:
        raise Invalid.field("query", "repeats too many fields under the same name")


def unlink_tokens(document: DocumentNode) -> None:
    """Cut the links by which each token of the document knows the one before.

    With them a document is a ring of thousands of objects, which only a garbage collection frees. A server that reads
    many documents was stopped for 0.1 s by each of its collections. Nothing reads these links after parsing.
    """
    token = document.loc.start_token if document.loc is not None else None
    while token is not None:
        token.prev, token = None, token.next


def extent_of(document: DocumentNode) -> Extent:
    """The extent of all operations and fragments together. A spread of a fragment within itself counts as empty."""
    return _Extents(_fragments(document)).of_document(document)


class _Extents:
    """The extents of selections. It is a class, since functions that call each other would be a ring of objects."""

    def __init__(self, fragments: dict[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._known: dict[str, Extent] = {}

    def of_document(self, document: DocumentNode) -> Extent:
        extent = Extent()
        for definition in document.definitions:
            if isinstance(definition, FragmentDefinitionNode):
                extent = extent.plus(self._of_fragment(definition.name.value))
            elif isinstance(definition, OperationDefinitionNode):
                extent = extent.plus(self._of(definition.selection_set.selections))
        return extent

    def _of(self, selections: Iterable[SelectionNode]) -> Extent:
        extent = Extent()
        for selection in selections:
            extent = extent.plus(self._of_one(selection))
        return extent

    def _of_one(self, selection: SelectionNode) -> Extent:
        match selection:
            case FieldNode(selection_set=inner, alias=alias):
                return self._of(inner.selections if inner else ()).within_field(alias is not None)
            case InlineFragmentNode():
                return self._of(selection.selection_set.selections)
            case FragmentSpreadNode():
                return self._of_fragment(selection.name.value)
        raise TypeError(f"unknown kind of selection: {selection!r}")

    def _of_fragment(self, name: str) -> Extent:
        if name not in self._known:
            self._known[name] = Extent()  # for cycles, which validation refuses later
            if name in self._fragments:
                self._known[name] = self._of(self._fragments[name].selection_set.selections)
        return self._known[name]


class _Selection:
    """What validation compares within one selection: the sizes of its fields by their name in the response.

    Two fields of one name cost the product of their sizes, since the fields inside them are compared with each other.
    """

    def __init__(self) -> None:
        self.size = 0
        self.comparisons = 0  # within its fields
        self._names: dict[str, tuple[int, int]] = {}  # the sum of the sizes, and the sum of their squares

    def add_field(self, name: str, inner: "_Selection") -> None:
        size = 1 + inner.size
        self._add(name, size, size * size)
        self.size += size
        self.comparisons += inner.total

    def add_all(self, other: "_Selection") -> None:
        for name, (sizes, squares) in other._names.items():
            self._add(name, sizes, squares)
        self.size += other.size
        self.comparisons += other.comparisons

    @property
    def total(self) -> int:
        """Comparisons within its fields and between them."""
        return self.comparisons + sum((sizes * sizes - squares) // 2 for sizes, squares in self._names.values())

    def _add(self, name: str, sizes: int, squares: int) -> None:
        known_sizes, known_squares = self._names.get(name, (0, 0))
        self._names[name] = (known_sizes + sizes, known_squares + squares)


def comparisons_of(document: DocumentNode) -> int:
    """A bound on how many pairs of fields validation compares, because they have one name in the response."""
    return _Comparisons(_fragments(document)).of_document(document)


class _Comparisons:
    """The comparisons within selections; a class for the reason of `_Extents`."""

    def __init__(self, fragments: dict[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._known: dict[str, _Selection] = {}

    def of_document(self, document: DocumentNode) -> int:
        total = sum(self._of_fragment(name).total for name in self._fragments)
        for definition in document.definitions:
            if isinstance(definition, OperationDefinitionNode):
                total += self._of(definition.selection_set.selections).total
        return total

    def _of(self, selections: Iterable[SelectionNode]) -> _Selection:
        selection = _Selection()
        for each in selections:
            match each:
                case FieldNode(selection_set=inner, alias=alias, name=name):
                    selection.add_field((alias or name).value, self._of(inner.selections if inner else ()))
                case InlineFragmentNode():
                    selection.add_all(self._of(each.selection_set.selections))
                case FragmentSpreadNode():
                    selection.add_all(self._of_fragment(each.name.value))
        return selection

    def _of_fragment(self, name: str) -> _Selection:
        if name not in self._known:
            self._known[name] = _Selection()  # for cycles, which validation refuses later
            if name in self._fragments:
                self._known[name] = self._of(self._fragments[name].selection_set.selections)
        return self._known[name]


def root_fields(document: DocumentNode, operation_name: str | None) -> int:
    """How many root fields the operation of a valid document selects. Directives may skip some of them."""
    fragments = _fragments(document)
    names: set[str] = set()
    seen: set[str] = set()
    waiting: list[SelectionNode] = []
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode) and operation_name in (
            None,
            definition.name.value if definition.name else None,
        ):
            waiting += definition.selection_set.selections
    while waiting:
        match waiting.pop():
            case FieldNode() as field:
                if not field.name.value.startswith("__"):
                    names.add((field.alias or field.name).value)
            case InlineFragmentNode() as inline:
                waiting += inline.selection_set.selections
            case FragmentSpreadNode() as spread if spread.name.value not in seen:
                seen.add(spread.name.value)
                waiting += fragments[spread.name.value].selection_set.selections
    return len(names)


def _fragments(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    return {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }
