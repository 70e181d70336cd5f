"""The OpenAPI document of the feature server. A test holds the server to it."""

from __future__ import annotations

from typing import Any

from fs_notebook._version import __version__
from fs_notebook.http.bodies import ARROW, FEATURES_MAX, JSON
from fs_notebook.online.vector import EXPIRED, NOT_FOUND, NULL, PRESENT

_TEXT = {"type": "string"}
_ANY: dict[str, Any] = {}
_MOMENT = {"type": "string", "format": "date-time"}

_SCHEMAS: dict[str, Any] = {
    "Error": {
        "type": "object",
        "required": ["kind", "message", "found", "remedy"],
        "properties": {
            "kind": _TEXT,
            "message": {**_TEXT, "description": "What is wrong."},
            "found": {"type": ["string", "null"]},
            "remedy": {"type": ["string", "null"], "description": "What to do."},
        },
    },
    "Question": {
        "type": "object",
        "required": ["features", "entities"],
        "additionalProperties": False,
        "properties": {
            "features": {
                "description": "Names of features or groups; NAME@2 for version 2.",
                "anyOf": [
                    _TEXT,
                    {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": FEATURES_MAX},
                ],
            },
            "entities": {
                "type": "object",
                "description": "For each entity its values, all lists of one length.",
                "additionalProperties": _ANY,
            },
            "request": {
                "type": ["object", "null"],
                "description": "What derived features read: one value, or a list of them.",
                "additionalProperties": _ANY,
            },
        },
        "examples": [{"features": ["total_readtime"], "entities": {"user": ["u7", "u8"]}}],
    },
    "Status": {"type": "string", "enum": [PRESENT, NULL, NOT_FOUND, EXPIRED]},
    "Column": {
        "type": "object",
        "required": ["group", "version", "values", "status", "newest_event"],
        "properties": {
            "group": _TEXT,
            "version": {"type": "integer"},
            "values": {"type": "array", "items": _ANY},
            "status": {"type": "array", "items": {"$ref": "#/components/schemas/Status"}},
            "newest_event": {
                "type": "array",
                "description": "The time of the newest event behind each value.",
                "items": {"anyOf": [_MOMENT, {"type": "null"}]},
            },
        },
    },
    "Answer": {
        "type": "object",
        "required": ["entities", "features", "at", "fetched_at"],
        "properties": {
            "entities": {"type": "object", "additionalProperties": {"type": "array"}},
            "features": {
                "type": "object",
                "additionalProperties": {"$ref": "#/components/schemas/Column"},
            },
            "at": {**_MOMENT, "description": "The time that the values are of."},
            "fetched_at": {**_MOMENT, "description": "When the oldest was read from the store."},
            "notices": {
                "type": "array",
                "items": _TEXT,
                "description": "Which of the features are deprecated, and why; absent if none is.",
            },
        },
    },
    "Named": {
        "type": "object",
        "required": ["name", "type"],
        "properties": {"name": _TEXT, "type": _TEXT},
    },
    "Version": {
        "type": "object",
        "required": ["group", "version", "serving", "features", "entity", "request", "ttl_seconds"],
        "properties": {
            "group": _TEXT,
            "version": {"type": "integer"},
            "serving": {
                "type": "boolean",
                "description": "Whether names without a version mean it.",
            },
            "features": {"type": "array", "items": {"$ref": "#/components/schemas/Named"}},
            "entity": {"type": "array", "items": {"$ref": "#/components/schemas/Named"}},
            "request": {"type": "array", "items": {"$ref": "#/components/schemas/Named"}},
            "ttl_seconds": {"type": ["number", "null"]},
        },
    },
}


def _answers(
    description: str, schema: dict[str, Any], *errors: int, more: Any = None
) -> dict[str, Any]:
    error = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    found: dict[str, Any] = {
        "200": {"description": description, "content": {JSON: {"schema": schema}, **(more or {})}}
    }
    for code in errors:
        found[str(code)] = {"description": _ERRORS[code], "content": error}
    return found


_ERRORS = {
    400: "The request cannot be answered as it is.",
    401: "The token is missing or another one.",
    403: "Without a token only this machine is answered.",
    404: "Nothing serves a feature of that name.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    500: "A stored value is damaged or was lost, or nobody foresaw this.",
    503: "The store does not answer.",
}


def document(*, secured: bool) -> dict[str, Any]:
    """Return the OpenAPI document, as `json.dumps` takes it."""
    versions = {
        "type": "object",
        "required": ["versions"],
        "properties": {
            "versions": {"type": "array", "items": {"$ref": "#/components/schemas/Version"}}
        },
    }
    health = {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"type": "string", "enum": ["ok"]}},
    }
    question = {"schema": {"$ref": "#/components/schemas/Question"}}
    arrow = {ARROW: {"schema": {"type": "string", "format": "binary"}}}
    text = {"text/plain": {"schema": _TEXT}}
    paths: dict[str, Any] = {
        "/v1/features": {
            "post": {
                "operationId": "read",
                "summary": "Read features of entities, in one round trip.",
                "requestBody": {"required": True, "content": {JSON: question}},
                "responses": _answers(
                    "The values, each with its status and freshness.",
                    {"$ref": "#/components/schemas/Answer"},
                    400, 401, 403, 404, 408, 413, 415, 500, 503, more=arrow,
                ),
            },
            "get": {
                "operationId": "features",
                "summary": "List what is served.",
                "responses": _answers(
                    "Each version that can be read.", versions, 401, 403, 500, 503
                ),
            },
        },
        "/health": {
            "get": {
                "operationId": "health",
                "summary": "Whether the store answers. Needs no token.",
                "security": [],
                "responses": _answers("It does.", health, 403, 500, 503),
            }
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "What was asked and answered, for Prometheus.",
                "responses": {**_answers("", {}, 401, 403), "200": {
                    "description": "The metrics.", "content": text,
                }},
            }
        },
        "/openapi.json": {
            "get": {
                "operationId": "openapi",
                "summary": "This document.",
                "responses": _answers("It.", {"type": "object"}, 401, 403),
            }
        },
    }  # fmt: skip
    components: dict[str, Any] = {"schemas": _SCHEMAS}
    if secured:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "fs-notebook feature server", "version": __version__},
        "paths": paths,
        "components": components,
        "security": [{"token": []}] if secured else [],
    }
