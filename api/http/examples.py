"""Builds examples of JSON schemas from the examples of their parts."""

from typing import Any

Schemas = dict[str, Any]

FORMATS = {
    "uuid": "0198c0de-0000-7000-8000-000000000000",
    "date-time": "2025-01-15T10:30:00Z",
    "date": "2025-01-15",
    "uri": "https://example.com",
}


def example_of(schema: dict[str, Any], schemas: Schemas) -> Any:
    """An instance of the schema.

    schemas: `components.schemas` of the document, to resolve references.
    An object gets the members that are required and those that state an example.
    """
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas)
    for known in ("const", "default"):
        if schema.get(known) is not None:
            return schema[known]
    if schema.get("examples"):
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return example_of(schema[choice][0], schemas)
    return _of_type(schema, schemas)


def _of_type(schema: dict[str, Any], schemas: Schemas) -> Any:
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        required = schema.get("required", ())
        members = schema.get("properties", {})
        return {
            name: example_of(member, schemas)
            for name, member in members.items()
            if name in required or member.get("examples")
        }
    if kind == "array":
        return [example_of(schema["items"], schemas)] if schema.get("items") else []
    if kind == "string":
        return FORMATS.get(schema.get("format", ""), "text"[: schema.get("maxLength", 4)])
    if kind in ("integer", "number"):
        return schema.get("minimum", 1 if kind == "integer" else 0.5)
    return True if kind == "boolean" else None
