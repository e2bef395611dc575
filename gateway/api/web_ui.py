"""GET / and GET /docs: pages for people, without a build step or files from other sites; and GET /openapi.json."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, abort, jsonify, request

from gateway.openapi.document import document
from gateway.openapi.operations import RouteDocs
from gateway.settings import GatewaySettings

_FOLDER = Path(__file__).resolve().parents[1] / "page"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SERVED = {".html", ".css", ".js", ".png", ".txt"}
_COMPRESSED = {".html", ".css", ".js", ".txt"}


@dataclass(frozen=True)
class _File:
    """One file of the page, as it is sent."""

    content: bytes
    compressed: bytes | None
    mimetype: str
    etag: str

    @staticmethod
    @cache
    def read(path: Path) -> _File:
        """A file of this package; read and compressed once in a process."""
        content = path.read_bytes()
        compressed = gzip.compress(content, mtime=0) if path.suffix in _COMPRESSED else None
        mimetype = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return _File(content, compressed, mimetype, hashlib.sha256(content).hexdigest()[:32])

    def response(self) -> Response:
        is_compressed = self.compressed is not None and bool(request.accept_encodings["gzip"])
        response = Response(self.compressed if is_compressed else self.content, mimetype=self.mimetype)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["Cache-Control"] = "no-cache"
        response.headers["Vary"] = "Accept-Encoding"
        if is_compressed:
            response.headers["Content-Encoding"] = "gzip"
        response.set_etag(self.etag, weak=True)
        response.make_conditional(request)
        return response


def routes(settings: GatewaySettings, families: tuple[RouteDocs, ...]) -> Blueprint:
    """The blueprint of the pages; reads their files once, now. `families` describe the other routes."""
    blueprint = Blueprint("page", __name__)
    paths = [path for path in _FOLDER.rglob("*") if path.suffix in _SERVED]
    files = {path.relative_to(_FOLDER).as_posix(): _File.read(path) for path in paths}

    @blueprint.get("/")
    def index() -> Response:
        return files["index.html"].response()

    @blueprint.get("/docs")
    def docs() -> Response:
        return files["docs.html"].response()

    @blueprint.get("/page/<path:name>")
    def asset(name: str) -> Response:
        if name not in files or name.endswith(".html"):  # those have addresses of their own
            abort(404)
        return files[name].response()

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(document(settings.model_name, settings.thinking, families))

    return blueprint
