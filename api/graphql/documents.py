"""Bounds on a document, checked on its syntax tree before anything walks through it once more.

Fragments make a short document long: twenty of them that each spread the next one twice say a million fields. Whoever
follows spreads pays for what they expand to, so that is what is measured here, each fragment once.
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
"""The query with which tools ask for the schema is 15 deep, and 2 is what the operations here need."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What a selection expands to."""

    fields: int = 0
    aliases: int = 0
    depth: int = 0

    def beside(self, other: "Extent") -> "Extent":
        return Extent(self.fields + other.fields, self.aliases + other.aliases, max(self.depth, other.depth))

    def below(self, aliased: bool) -> "Extent":
        """With a field around it."""
        return Extent(self.fields + 1, self.aliases + aliased, self.depth + 1)


def check_length(query: str) -> None:
    """Raises Invalid for text that is too long to read; `MAX_TOKENS` does not count comments and characters."""
    if len(query) > MAX_LENGTH:
        raise Invalid.field("query", f"has more than {MAX_LENGTH:,} characters")


def check(document: DocumentNode, operation_name: str | None) -> None:
    """Raises Invalid where the document is past one of the bounds above, or does not say what of it to run."""
    operations = [part for part in document.definitions if isinstance(part, OperationDefinitionNode)]
    if operation_name is None and len(operations) > 1:
        raise Invalid.field("operationName", "must name one of the document's operations")
    extent = measure(document)
    for what, amount, limit in (
        ("aliases", extent.aliases, MAX_ALIASES),
        ("levels of fields", extent.depth, MAX_DEPTH),
        ("fields", extent.fields, MAX_FIELDS),
    ):
        if amount > limit:
            raise Invalid.field("query", f"has more than {limit} {what}")


def measure(document: DocumentNode) -> Extent:
    """The extent of all operations and fragments together. A fragment inside of itself counts as nothing there."""
    fragments = _fragments(document)
    known: dict[str, Extent] = {}

    def of(selections: Iterable[SelectionNode]) -> Extent:
        extent = Extent()
        for selection in selections:
            extent = extent.beside(of_one(selection))
        return extent

    def of_one(selection: SelectionNode) -> Extent:
        match selection:
            case FieldNode(selection_set=inner, alias=alias):
                return of(inner.selections if inner else ()).below(alias is not None)
            case InlineFragmentNode():
                return of(selection.selection_set.selections)
            case FragmentSpreadNode():
                return of_fragment(selection.name.value)
        raise TypeError(f"no selection: {selection!r}")

    def of_fragment(name: str) -> Extent:
        if name not in known:
            known[name] = Extent()  # meanwhile, for cycles, which validation refuses
            if name in fragments:
                known[name] = of(fragments[name].selection_set.selections)
        return known[name]

    extent = Extent()
    for definition in document.definitions:
        if isinstance(definition, FragmentDefinitionNode):
            extent = extent.beside(of_fragment(definition.name.value))
        elif isinstance(definition, OperationDefinitionNode):
            extent = extent.beside(of(definition.selection_set.selections))
    return extent


def root_fields(document: DocumentNode, operation_name: str | None) -> int:
    """How many fields of the schema's roots a valid document asks for in this operation: at least what is run."""
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
