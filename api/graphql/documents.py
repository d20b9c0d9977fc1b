"""Bounds the size of a GraphQL document, on its syntax tree, before validation and execution walk through it.

Fragments can make a short document expand to a huge one: twenty fragments that each spread the next one twice expand
to a million fields. So the bounds hold for the expanded document. Each fragment is measured once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

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

MAX_LENGTH = 100_000
MAX_TOKENS = 1_000
MAX_FIELDS = 500
MAX_ALIASES = 15
MAX_DEPTH = 20
"""The introspection query of common tools is 15 levels deep; the operations of this schema need 2."""


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


def check_length(query: str) -> None:
    """Raises Invalid for a text that is too long to parse. `MAX_TOKENS` does not bound comments and long tokens."""
    if len(query) > MAX_LENGTH:
        raise Invalid.field("query", f"has more than {MAX_LENGTH:,} characters")


def check(document: DocumentNode, operation_name: str | None) -> None:
    """Raises Invalid where the document exceeds a bound, or has several operations and `operation_name` is missing."""
    operations = [part for part in document.definitions if isinstance(part, OperationDefinitionNode)]
    if operation_name is None and len(operations) > 1:
        raise Invalid.field("operationName", "must name one of the document's operations")
    extent = extent_of(document)
    for what, amount, limit in (
        ("aliases", extent.aliases, MAX_ALIASES),
        ("levels of fields", extent.depth, MAX_DEPTH),
        ("fields", extent.fields, MAX_FIELDS),
    ):
        if amount > limit:
            raise Invalid.field("query", f"has more than {limit} {what}")


def extent_of(document: DocumentNode) -> Extent:
    """The extent of all operations and fragments together. A spread of a fragment within itself counts as empty."""
    fragments = _fragments(document)
    known: dict[str, Extent] = {}

    def of(selections: Iterable[SelectionNode]) -> Extent:
        extent = Extent()
        for selection in selections:
            extent = extent.plus(of_one(selection))
        return extent

    def of_one(selection: SelectionNode) -> Extent:
        match selection:
            case FieldNode(selection_set=inner, alias=alias):
                return of(inner.selections if inner else ()).within_field(alias is not None)
            case InlineFragmentNode():
                return of(selection.selection_set.selections)
            case FragmentSpreadNode():
                return of_fragment(selection.name.value)
        raise TypeError(f"unknown kind of selection: {selection!r}")

    def of_fragment(name: str) -> Extent:
        if name not in known:
            known[name] = Extent()  # for cycles, which validation refuses later
            if name in fragments:
                known[name] = of(fragments[name].selection_set.selections)
        return known[name]

    extent = Extent()
    for definition in document.definitions:
        if isinstance(definition, FragmentDefinitionNode):
            extent = extent.plus(of_fragment(definition.name.value))
        elif isinstance(definition, OperationDefinitionNode):
            extent = extent.plus(of(definition.selection_set.selections))
    return extent


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
