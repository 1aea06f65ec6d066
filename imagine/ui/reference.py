"""The API reference as a plain page, made from the same description that clients are made from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from imagine.ui.accounts import Accounts
from imagine.ui.sheet import sheet, table_html, words_for
from imagine.ui.words import Words

_CODE, _AS_CODE = re.compile(r"`([^`]+)`"), r"<code>\1</code>"
_METHODS = ("get", "post", "put", "patch", "delete")


def routes(accounts: Accounts, openapi: Callable[[], dict[str, Any]]) -> APIRouter:
    """The route of the page; `openapi` gives the description of the API."""
    router = APIRouter(include_in_schema=False)

    @router.get("/reference")
    async def show(request: Request) -> Response:
        words = words_for(request, accounts)
        body = await run_in_threadpool(lambda: reference_html(openapi(), words))
        return sheet(request, accounts, words("place.reference"), body)

    return router


def reference_html(api: Mapping[str, Any], words: Words) -> str:
    """Every operation, by its tag; details open one by one."""
    grouped: dict[str, list[str]] = {}
    for path, method, operation in _operations(api):
        tag = (operation.get("tags") or ["other"])[0]
        grouped.setdefault(tag, []).append(_operation_html(path, method, operation, api, words))
    contents = "".join(
        f'<a class="small second" href="#{_anchor(tag)}">{escape(tag)}</a> ' for tag in grouped
    )
    sections = "".join(
        f'<section class="card" id="{_anchor(tag)}"><h2>{escape(tag)}</h2>'
        f"{''.join(found)}</section>"
        for tag, found in grouped.items()
    )
    # Written in English, like all that programs read.
    return (
        f'<p class="row">{contents}</p><p><a href="/openapi.json">openapi.json</a></p>'
        f'<div lang="en">{_paragraphs(api["info"].get("description", ""))}{sections}</div>'
    )


def _operations(api: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in api.get("paths", {}).items():
        for method in _METHODS:
            if method in methods:
                yield path, method, methods[method]


def _operation_html(
    path: str, method: str, operation: Mapping[str, Any], api: Mapping[str, Any], words: Words
) -> str:
    parts = [_paragraphs(operation.get("description", ""))]
    if rows := [_parameter_row(one) for one in operation.get("parameters", [])]:
        heads = [words(f"ref.{name}") for name in ("name", "where", "kind", "about")]
        parts.append(f"<h3>{escape(words('ref.parameters'))}</h3>")
        parts.append(table_html(heads, rows, f"{words('ref.parameters')} {method} {path}"))
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h3>{escape(words('ref.body'))} <code>{escape(media)}</code></h3>")
        parts.append(_schema_html(content.get("schema", {}), api, words, f"{method} {path}"))
    answers = "".join(
        f"<li><code>{escape(status)}</code> {escape(told.get('description', ''))}</li>"
        for status, told in operation.get("responses", {}).items()
    )
    parts.append(f"<h3>{escape(words('ref.answers'))}</h3><ul>{answers}</ul>")
    summary = escape(operation.get("summary", ""))
    return (
        f"<details><summary><code>{method.upper()} {escape(path)}</code> {summary}</summary>"
        f"{''.join(parts)}</details>"
    )


def _schema_html(
    schema: Mapping[str, Any], api: Mapping[str, Any], words: Words, about: str
) -> str:
    found = _resolved(schema, api)
    required = found.get("required", [])
    rows = [
        [
            f"<code>{escape(name)}</code>{' *' if name in required else ''}",
            escape(_kind(one, api)),
            escape(str(one.get("description", ""))),
        ]
        for name, one in found.get("properties", {}).items()
    ]
    heads = [words(f"ref.{name}") for name in ("name", "kind", "about")]
    shown = table_html(heads, rows, f"{words('ref.body')} {about}")
    for example in found.get("examples", [])[:1]:
        text = escape(json.dumps(example, indent=2, ensure_ascii=False))
        shown += f'<pre tabindex="0" role="region" aria-label="{escape(about)}">{text}</pre>'
    return shown


def _parameter_row(one: Mapping[str, Any]) -> list[str]:
    return [
        f"<code>{escape(one['name'])}</code>{' *' if one.get('required') else ''}",
        escape(one.get("in", "")),
        escape(_kind(one.get("schema", {}), {})),
        escape(one.get("description", "")),
    ]


def _kind(schema: Mapping[str, Any], api: Mapping[str, Any]) -> str:
    """What a value looks like, in a few words."""
    if choices := schema.get("enum"):
        return " | ".join(map(str, choices))
    if options := schema.get("anyOf"):
        return " | ".join(_kind(option, api) for option in options)
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    kind = str(schema.get("type", "any"))
    if kind == "array":
        kind = f"list of {_kind(schema.get('items', {}), api)}"
    ends = [
        f"{sign} {schema[name]:g}"
        for name, sign in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="))
        if name in schema
    ]
    return " ".join([kind, *ends])


def _resolved(schema: Mapping[str, Any], api: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if not reference:
        return schema
    name = str(reference).rpartition("/")[2]
    found: Mapping[str, Any] = api.get("components", {}).get("schemas", {}).get(name, {})
    return found


def _paragraphs(text: str) -> str:
    parts = [escape(part) for part in text.split("\n\n") if part.strip()]
    return "".join(f"<p>{part}</p>" for part in (_CODE.sub(_AS_CODE, part) for part in parts))


def _anchor(tag: str) -> str:
    return "tag-" + "".join(c if c.isalnum() else "-" for c in tag.lower())
