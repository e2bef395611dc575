"""GET / and GET /docs: pages for people, without a build step or files from other sites; and GET /openapi.json."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from flask import Blueprint, Response, jsonify

from gateway.openapi.document import document
from gateway.openapi.operations import RouteDocs
from gateway.settings import GatewaySettings

_FOLDER = Path(__file__).resolve().parents[1] / "page"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ASSETS = ("page.js", "words.js", "style.css", "docs.js", "sample.png")


def routes(settings: GatewaySettings, families: tuple[RouteDocs, ...]) -> Blueprint:
    """The blueprint of the pages; reads their files once, now. `families` describe the other routes."""
    blueprint = Blueprint("page", __name__)
    files = {name: (_FOLDER / name).read_bytes() for name in (*_ASSETS, "index.html", "docs.html")}

    def answer(name: str) -> Response:
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
        return Response(files[name], mimetype=mimetypes.guess_type(name)[0], headers=headers)

    @blueprint.get("/")
    def index() -> Response:
        return answer("index.html")

    @blueprint.get("/docs")
    def docs() -> Response:
        return answer("docs.html")

    @blueprint.get(f"/page/<any({','.join(map(repr, _ASSETS))}):name>")
    def asset(name: str) -> Response:
        return answer(name)

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(document(settings.model_name, settings.thinking, families))

    return blueprint
