"""GraphQL's types bound neither a string nor a number: arguments here become ones that the API takes."""

from collections.abc import Callable
from typing import Any

from graphql import ArgumentNode, FloatValueNode, IntValueNode, StringValueNode, Visitor, parse, print_ast, visit
from graphql.language.ast import NullValueNode

ALGORITHMS = ("hybrid", "collaborative", "content-based", "deep-learning")
TYPES = ("view", "click", "like", "purchase")


def within_bounds(query: str, ids: dict[str, list[str]]) -> str:
    """The query with every argument within the API's bounds. ids: to choose from, by parameter of paths."""

    def text(values: Any) -> Callable[[Any], StringValueNode]:
        return lambda value: StringValueNode(value=values[len(str(value)) % len(values)])

    bounded: dict[str, Callable[[Any], Any]] = {
        "count": lambda value: IntValueNode(value=str(abs(int(value)) % 100 + 1)),
        "value": lambda value: FloatValueNode(value=str(abs(float(value)) % 1)),
        "algorithm": text(ALGORITHMS),
        "interactionType": text(TYPES),
        "itemId": text(ids["item_id"]),
        "userId": text(ids["user_id"]),
    }

    class Bound(Visitor):
        def enter_argument(self, node: ArgumentNode, *_: Any) -> ArgumentNode | None:
            if node.name.value not in bounded or isinstance(node.value, NullValueNode):
                return None
            return ArgumentNode(name=node.name, value=bounded[node.name.value](node.value.value))

    return print_ast(visit(parse(query), Bound()))
