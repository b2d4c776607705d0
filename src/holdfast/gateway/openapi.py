"""The gateway's routes as an OpenAPI document, for clients and for operators."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from holdfast.gateway.api import GEMINI_ROUTES, ROUTES, Dialect, Route

__all__ = ["OPERATORS", "clients_document", "operators_document"]

OPERATORS: Final[Mapping[str, str]] = {
    "/metrics": "Counters and gauges, in Prometheus' text format.",
    "/engines": "The state of each engine and the number of sessions.",
    "/health": "200 while an engine is up, else 503.",
    "/openapi.json": "This document.",
}
"""Routes of the admin server, each by GET."""

_REFUSALS: Final[Mapping[str, str]] = {
    "400": "The body is too deep, cannot carry a salt, or asks for what cannot be translated.",
    "401": "No valid API key.",
    "404": "No such path, or another tenant's answer.",
    "405": "Another method.",
    "408": "The body did not arrive in time.",
    "413": "The body is too long.",
    "503": "No engine is reachable.",
    "504": "The engine did not answer in time.",
}
_TEXT: Final = {"type": "string"}


def clients_document() -> dict[str, Any]:
    """Describe the routes for clients. Pure."""
    paths: dict[str, Any] = {
        "/health": {"get": _operation(OPERATORS["/health"], {"200": "Up.", "503": "Down."})},
        "/openapi.json": {"get": _operation(OPERATORS["/openapi.json"], {"200": "A document."})},
    }
    for route in (*ROUTES, *GEMINI_ROUTES):
        methods = {method.lower(): _of_route(route, method) for method in sorted(route.methods)}
        paths[route.path.replace("*", "{id}")] = methods
    document = _document("Holdfast gateway", paths)
    document["components"] = {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"},
            "anthropic": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            "gemini": {"type": "apiKey", "in": "header", "name": "x-goog-api-key"},
        },
        "schemas": {dialect: _error_schema(dialect) for dialect in _DIALECTS},
    }
    document["security"] = [{}, {"bearer": []}, {"anthropic": []}, {"gemini": []}]
    return document


def operators_document() -> dict[str, Any]:
    """Describe the routes of the admin server. Pure."""
    paths = {
        path: {"get": _operation(text, {"200": "The content."})} for path, text in OPERATORS.items()
    }
    paths["/health"]["get"]["responses"]["503"] = {"description": "No engine is up."}
    return _document("Holdfast gateway, for operators", paths)


def _document(title: str, paths: dict[str, Any]) -> dict[str, Any]:
    info = {"title": title, "version": version("holdfast")}
    return {"openapi": "3.1.0", "info": info, "paths": paths}


def _operation(summary: str, answers: Mapping[str, str]) -> dict[str, Any]:
    responses = {status: {"description": text} for status, text in answers.items()}
    return {"summary": summary, "responses": responses}


def _of_route(route: Route, method: str) -> dict[str, Any]:
    operation = _operation(route.summary, {"default": "The engine's answer, byte for byte."})
    error = {"$ref": f"#/components/schemas/{route.dialect}"}
    for status, text in _REFUSALS.items():
        content = {"application/json": {"schema": error}}
        operation["responses"][status] = {"description": text, "content": content}
    if "*" in route.path:
        parameter = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
        operation["parameters"] = [parameter]
    if method == "POST":
        schema = {"type": "object"}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


_DIALECTS: Final[tuple[Dialect, ...]] = ("openai", "responses", "anthropic", "gemini")


def _error_schema(dialect: Dialect) -> dict[str, Any]:
    """The shape of an API's errors, as `api.error_body` makes them."""
    if dialect == "anthropic":
        fields: dict[str, Any] = {"type": _TEXT, "message": _TEXT}
        outer: dict[str, Any] = {"type": {"const": "error"}}
    else:
        named = "status" if dialect == "gemini" else "type"
        fields = {"message": _TEXT, named: _TEXT, "code": {"type": "integer"}}
        outer = {}
    error = {"type": "object", "properties": fields, "required": list(fields)}
    outer["error"] = error
    return {"type": "object", "properties": outer, "required": list(outer)}
