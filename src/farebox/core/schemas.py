"""Short ways to write JSON Schema, in the dialect of OpenAPI 3.0."""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1, "pattern": r"^[^\x00]*$"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}


def ref(name: str) -> Schema:
    """A reference to the schema of this name in the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(required: Schema, optional: Schema | None = None, **more: Any) -> Schema:
    """An object with these members, which may have others. (OpenAPI 3.0 forbids an empty list of required ones.)"""
    needed = {"required": list(required)} if required else {}
    return {"type": "object", **needed, "properties": {**required, **(optional or {})}, **more}


def array_of(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def one_of(words: str) -> Schema:
    """One of the words of a text."""
    return {"type": "string", "enum": words.split()}


def or_null(schema: Schema) -> Schema:
    return {**schema, "nullable": True}
