"""What watches a service asks: whether it lives, whether it can answer, how busy it is, and which version it is."""

from __future__ import annotations

from flask import Blueprint, Response, g, jsonify

from gateway import VERSION
from gateway.api.error_handlers import RETRY_AFTER_S
from gateway.chat.readiness import Readiness
from gateway.limits.admission import Admission
from gateway.openapi.operations import LOOKING, RouteDocs, operation
from gateway.openapi.responses import fields, said
from gateway.settings import GatewaySettings


def routes(settings: GatewaySettings, readiness: Readiness, admission: Admission, build_digest: str) -> Blueprint:
    """The blueprint of the probes."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health/live")
    def live() -> Response:
        return jsonify(status="alive")

    @blueprint.post("/ping")
    @blueprint.get("/ping")
    @blueprint.get("/health")
    @blueprint.get("/health/ready")
    def ready() -> Response:
        fault = readiness.fault()
        if fault is None:
            return jsonify(status="ready", model=settings.model_name, build=build_digest)
        g.record.facts["reason"] = fault
        response = jsonify(status="not ready", reason=fault)
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    @blueprint.get("/version")
    def version() -> Response:
        return jsonify(version=VERSION, build=build_digest)

    @blueprint.get("/load")
    def load() -> Response:
        running, waiting, tokens = admission.counts()
        return jsonify(server_load=running + waiting, running=running, waiting=waiting, admitted_tokens=tokens)

    return blueprint


def docs() -> RouteDocs:
    """What these routes tell the OpenAPI document."""
    ready = operation("Whether an image can be answered right now.", "Health", ("403", "503"), "Health")
    ready["responses"]["503"]["description"] = "Not ready; the answer says why."
    as_others_ask = {**ready, "summary": "The same as /health/ready."}
    return RouteDocs(
        {
            "/health/live": {"get": operation("Whether the process runs.", "Health", (), "Health")},
            "/health/ready": {"get": ready},
            "/health": {"get": as_others_ask},
            "/ping": {"get": as_others_ask, "post": as_others_ask},
            "/version": {"get": operation("Which version this is.", "Version", LOOKING, "VisionProblem")},
            "/load": {"get": operation("How much this worker has to do.", "Load", LOOKING, "VisionProblem")},
        },
        answers=_ANSWERS,
    )


_ANSWERS = {
    "Version": fields(
        *("version", "build"),
        version=said("string", "The project's version."),
        build=said("string", "The digest of the build that is served."),
    ),
    "Load": fields(
        *("server_load", "running", "waiting", "admitted_tokens"),
        server_load=said("integer", "Requests that this worker has not answered yet."),
        running=said("integer", "Those that were admitted."),
        waiting=said("integer", "Those that wait to be admitted."),
        admitted_tokens=said("integer", "Tokens that the running requests may come to."),
    ),
}
