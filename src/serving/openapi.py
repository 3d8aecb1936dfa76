"""What the server tells about itself: OpenAPI (https://spec.openapis.org/oas/v3.1.0) and a page to try it on.

Both are made from what is known of the model: its signature and its input example.
"""

import html
import json
from collections.abc import Iterable, Mapping
from typing import Any

_TYPES: Mapping[str, Mapping[str, Any]] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "float": {"type": ["number", "null"], "format": "float"},
    "double": {"type": ["number", "null"], "format": "double"},
    "string": {"type": ["string", "null"]},
    "datetime": {"type": ["string", "null"], "format": "date-time"},
    "binary": {"type": ["string", "null"], "contentEncoding": "base64"},
}
"""JSON schemas of MLflow's column types; others may be anything."""

_PREDICT_ERRORS = {
    "413": "The body is too large.",
    "415": "The body is compressed in a way that the server does not know.",
    "422": "The data does not fit the model; `detail` names the column and the row.",
    "500": "The model failed.",
    "503": "More requests wait than the model answers in time.",
}


def document(info: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """The OpenAPI document. `info`: the content of /metadata; `paths`: all there are, with their methods."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": info["name"],
            "version": str(info["version"]),
            "description": f"Deployment {info['deployment_id']} of a model of the flavour {info['flavor']}.",
        },
        "paths": {path: {method.lower(): _operation(path, info)} for path, method in paths.items()},
        "components": {"schemas": {"Problem": _PROBLEM}},
    }


def page(info: Mapping[str, Any]) -> str:
    """The page, in HTML; it needs nothing from elsewhere."""
    example = json.dumps({"data": info.get("input_example") or []}, indent=1)
    return _PAGE.format(
        name=html.escape(str(info["name"])),
        deployment=html.escape(str(info["deployment_id"])),
        example=html.escape(example),
        signature=html.escape(json.dumps(info.get("signature"), indent=1)),
    )


def _operation(path: str, info: Mapping[str, Any]) -> dict[str, Any]:
    if path != "/predict":
        return {"summary": _SUMMARIES.get(path, path), "responses": {"200": {"description": "The answer."}}}
    body: dict[str, Any] = {
        "type": "object",
        "required": ["data"],
        "additionalProperties": False,
        "properties": {"data": data_schema((info.get("signature") or {}).get("inputs"))},
    }
    if info.get("input_example") is not None:
        body["examples"] = [{"data": info["input_example"]}]
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    answer = {"type": "object", "required": ["predictions"], "properties": {"predictions": {}}}
    return {
        "summary": _SUMMARIES[path],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "A prediction a row.", "content": {"application/json": {"schema": answer}}},
            **{status: {"description": text, "content": problem} for status, text in _PREDICT_ERRORS.items()},
        },
    }


def data_schema(inputs: Iterable[Mapping[str, Any]] | None) -> dict[str, Any]:
    """The JSON schema of `data`. `inputs`: of the signature, as MLflow writes them; None: the model has none."""
    columns = list(inputs or ())
    if not columns:
        return {"description": "Rows, as the model takes them."}
    if columns[0].get("type") == "tensor":
        return _tensors(columns)
    cells = [dict(_TYPES.get(column["type"], {})) for column in columns]
    row: dict[str, Any] = {"type": "array", "prefixItems": cells, "minItems": len(cells), "maxItems": len(cells)}
    rows: dict[str, Any] = {"title": "rows", "type": "array", "minItems": 1, "items": row}
    forms = [rows]
    if len(cells) == 1:
        forms.append({"title": "values", "type": "array", "minItems": 1, "items": cells[0]})
    if any("name" not in column for column in columns):
        return {"anyOf": forms}
    required = [column["name"] for column in columns if column.get("required", not column.get("optional"))]
    properties = dict(zip((column["name"] for column in columns), cells, strict=True))
    record = {"type": "object", "required": required, "properties": properties}
    lists = {name: {"type": "array", "minItems": 1, "items": cell} for name, cell in properties.items()}
    forms.append({"title": "records", "type": "array", "minItems": 1, "items": record})
    forms.append({"title": "columns", "type": "object", "required": required, "properties": lists})
    return {"anyOf": forms}


def _tensors(tensors: list[Mapping[str, Any]]) -> dict[str, Any]:
    parts = [_nested(tensor["tensor-spec"]["dtype"], tensor["tensor-spec"]["shape"]) for tensor in tensors]
    if "name" not in tensors[0]:
        return parts[0]
    names = [tensor["name"] for tensor in tensors]
    return {"type": "object", "required": names, "properties": dict(zip(names, parts, strict=True))}


def _nested(dtype: str, shape: list[int]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string"} if dtype == "str" else {"type": ["number", "boolean", "null"]}
    for size in reversed(shape):
        exact = {} if size < 0 else {"minItems": size, "maxItems": size}
        found = {"type": "array", "items": found, **exact}
    return found


_SUMMARIES = {
    "/predict": "Predict rows",
    "/health": "Whether the model serves",
    "/metadata": "What serves, with which versions",
    "/metrics": "What Prometheus reads",
    "/openapi.json": "This document",
    "/docs": "A page to try the model on",
}

_PROBLEM = {
    "type": "object",
    "description": "Problem details, RFC 9457.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Stable, for programs."},
        "pointer": {"type": "string", "description": "JSON pointer (RFC 6901) to the part of the body."},
    },
}

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{name}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }}
textarea, pre {{ box-sizing: border-box; width: 100%; font: 14px/1.4 ui-monospace, monospace; padding: .5rem }}
pre {{ background: #8881; overflow: auto }}
</style>
<h1>{name}</h1>
<p>Deployment {deployment}. <a href="openapi.json">openapi.json</a> <a href="metadata">metadata</a>
<h2>POST /predict</h2>
<form>
<textarea rows="8" name="body">{example}</textarea>
<p><button>Predict</button>
</form>
<pre id="answer" hidden></pre>
<h2>Signature</h2>
<pre>{signature}</pre>
<script>
document.querySelector("form").onsubmit = async event => {{
  event.preventDefault()
  const answer = document.getElementById("answer")
  const response = await fetch("predict", {{method: "POST", body: event.target.body.value}})
  answer.textContent = response.status + "\\n" + await response.text()
  answer.hidden = false
}}
</script>
</html>
"""
