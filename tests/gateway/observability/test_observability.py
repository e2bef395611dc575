"""What can be seen of the service: metrics, logs and traces, and a dashboard that shows only what exists."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from live_gateway import live_gateway
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from samples import URL, ask
from structlog.testing import capture_logs

from gateway.app import create_app
from gateway.limits.api_keys import create_key
from gateway.observability.metrics import Metrics
from gateway.observability.otel import OtlpSpans
from gateway.observability.tracing import Tracing
from gateway.resources import AUDIT
from gateway.settings import GatewaySettings
from gateway.triton.backend import Chunk
from glmserve.build.manifest import Manifest
from glmserve.contract import Finish
from glmserve.engine.metrics import ALL_METRICS
from glmserve.errors import BackendDown

DASHBOARD = Path(__file__).resolve().parents[3] / "docs" / "grafana-dashboard.json"
WAIT_S = 10
PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def metric(text: str, name: str, **labels: str) -> float:
    """The value of a metric, 0 where it was never touched."""
    for line in text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name and all(f'{k}="{v}"' in (found[2] or "") for k, v in labels.items()):
            return float(found[3])
    return 0.0


def test_a_request_is_counted_with_its_tokens_and_stages(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    backend.chunks[-1] = Chunk((), Finish.STOP, (1.0, 2.0, 3.0, 4.0), cached_tokens=5)
    usage = ask(client, image).get_json()["usage"]
    text = client.get("/metrics").text
    assert metric(text, "glm_gateway_requests_total", route=URL, status="200") == 1
    for kind in ("prompt", "image", "completion"):
        assert metric(text, "glm_gateway_tokens_total", kind=kind) == usage[f"{kind}_tokens"]
    for stage in ("admission", "prepare", "queue", "vision", "prefill", "decode"):
        assert metric(text, "glm_gateway_stage_seconds_count", stage=stage) == 1
    assert metric(text, "glm_gateway_first_token_seconds_count") == 1
    assert metric(text, "glm_gateway_running_requests") == 0


def test_an_answer_leaves_before_it_is_told_of_and_makes_room_before_it_leaves(
    build: Path, backend: FakeBackend, image: str
) -> None:
    app = create_app(GatewaySettings(build=build, concurrent_requests=1, address_concurrent_requests=1), backend)
    client = FlaskClient(app, app.response_class)  # which closes nothing by itself
    with capture_logs() as events:
        answers = [ask(client, image) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 3 and not events
        for number, answer in enumerate(answers, start=1):
            answer.close()
            assert [event["event"] for event in events] == ["request_end"] * number


def test_what_is_not_answered_is_counted_by_reason(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    ask(client, "%")
    backend.chunks, backend.error = [], BackendDown()
    ask(client, image)
    text = client.get("/metrics").text
    assert metric(text, "glm_gateway_refusals_total", reason="bad_image") == 1
    assert metric(text, "glm_gateway_refusals_total", reason="backend_down") == 1


def test_a_running_stream_is_seen_while_it_runs(client: FlaskClient, image: str) -> None:
    response = ask(client, image, stream=True)
    assert metric(client.get("/metrics").text, "glm_gateway_running_requests") == 1
    response.close()
    assert metric(client.get("/metrics").text, "glm_gateway_running_requests") == 0


def test_who_counted_earlier_does_not_set_the_gauges_last() -> None:
    """A number of the past stayed there until the next request came."""
    metrics, counting, gate = Metrics(None), threading.Event(), threading.Event()

    def one_runs() -> tuple[int, int, int]:
        counting.set()
        assert gate.wait(WAIT_S)
        return 1, 0, 9

    with ThreadPoolExecutor(2) as pool:
        earlier = pool.submit(metrics.crowd, one_runs)
        assert counting.wait(WAIT_S)
        later = pool.submit(metrics.crowd, lambda: (0, 0, 0))
        with pytest.raises(TimeoutError):
            later.result(0.1)
        gate.set()
        earlier.result(WAIT_S)
        later.result(WAIT_S)
    assert metric(metrics.page().decode(), "glm_gateway_running_requests") == 0


def test_metrics_need_a_key_of_their_own_where_there_are_keys(
    build: Path, backend: FakeBackend, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    codes = {}
    for role in ("user", "metrics", "admin"):
        secret = create_key(keys, role, role)  # type: ignore[arg-type]
        client = create_app(GatewaySettings(build=build, keys_file=keys), backend).test_client()
        codes[role] = client.get("/metrics", headers={"X-API-Key": secret}).status_code
    assert codes == {"user": 403, "metrics": 200, "admin": 200}
    assert client.get("/metrics").status_code == 401


def test_several_workers_are_summed_up(build: Path) -> None:
    def counted(url: str) -> float:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
            return metric(reply.read().decode(), "glm_gateway_requests_total", route="/v1/models", status="200")

    with live_gateway(build, WORKERS="2") as url:
        for _ in range(20):
            urllib.request.urlopen(f"{url}/v1/models", timeout=10).close()
        assert eventually(lambda: counted(url) == 20)  # an answer leaves before it is counted


def test_the_log_event_names_key_build_tokens_and_times_and_nothing_else_of_the_user(
    build: Path, backend: FakeBackend, tmp_path: Path, image: str
) -> None:
    keys = tmp_path / "keys.json"
    secret = create_key(keys, "shop")
    client = create_app(GatewaySettings(build=build, keys_file=keys), backend).test_client()
    with capture_logs() as events:
        client.post(URL, json={"image": image, "prompt": "my question"}, headers={"X-API-Key": secret})
    (event,) = events
    assert event["key"] == "shop" and event["build"] == Manifest.read(build).digest
    assert {"prompt_tokens", "completion_tokens", "first_token_ms", "total_ms", "admission_ms", "prepare_ms"} <= set(
        event
    )
    assert not any(word in str(event) for word in (secret, "my question", image[:20], "red circle"))


def test_the_audit_log_names_images_by_their_hash_only(
    build: Path, backend: FakeBackend, tmp_path: Path, image: str
) -> None:
    file = tmp_path / "audit.jsonl"
    app = create_app(GatewaySettings(build=build, audit_file=file), backend)
    ask(app.test_client(), image, "my question")
    ask(app.test_client(), "%")
    app.extensions[AUDIT].close()
    answered, refused = map(json.loads, file.read_text().splitlines())
    assert answered["images"] == [hashlib.sha256(base64.b64decode(image)).hexdigest()]
    assert (answered["status"], answered["address"], answered["route"]) == (200, "127.0.0.1", URL)
    assert (refused["status"], refused["images"]) == (400, [])
    assert "question" not in file.read_text() and file.stat().st_mode & 0o777 == 0o600


def test_a_trace_is_passed_on_as_it_came(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    body = {"image": image, "prompt": "Hi"}
    for sent in (PARENT, "nonsense"):
        client.post(URL, json=body, headers={"traceparent": sent})
    assert [request.traceparent for request in backend.requests] == [PARENT, ""]


def test_a_span_continues_the_clients_trace_and_is_continued_by_ours() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing(OtlpSpans("", "ours", exporter))
    passed_on, end = tracing.begin(PARENT)
    assert end is not None
    end("/v1/chat/vision", 503, {"prompt_tokens": 7})
    tracing.close()
    (span,) = exporter.get_finished_spans()
    assert span.context is not None and span.parent is not None and span.attributes is not None
    assert passed_on == f"00-{'a' * 32}-{span.context.span_id:016x}-01"
    assert f"{span.parent.span_id:016x}" == "b" * 16
    assert span.name == "/v1/chat/vision" and span.attributes["glm.prompt_tokens"] == 7
    assert not span.status.is_ok


def test_a_span_says_what_was_asked_of_a_model_in_the_words_of_the_conventions() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing(OtlpSpans("", "ours", exporter))
    for route in ("/v1/messages", "/v1/completions", "/v1/models"):
        _, end = tracing.begin("")
        assert end is not None
        facts = {"prompt_tokens": 7, "completion_tokens": 3, "finish_reason": "stop"}
        end(route, 200, {} if route == "/v1/models" else facts)
    tracing.close()
    told = [dict(span.attributes or {}) for span in exporter.get_finished_spans()]
    assert [one.get("gen_ai.operation.name") for one in told] == ["chat", "text_completion", None]
    assert told[0]["gen_ai.request.model"] == "ours" and told[0]["gen_ai.usage.output_tokens"] == 3
    assert told[0]["gen_ai.response.finish_reasons"] == ("stop",)


def queries(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [v for k, v in node.items() if k == "expr"] + [q for v in node.values() for q in queries(v)]
    return [q for inner in node for q in queries(inner)] if isinstance(node, list) else []


def test_the_dashboard_asks_for_metrics_that_exist_and_shows_all_of_the_gateways(
    client: FlaskClient, says: Callable[..., list[Chunk]], image: str
) -> None:
    ask(client, image)
    ask(client, "%")
    exported = set(re.findall(r"^(glm_\w+?)(?:\{| )", client.get("/metrics").text, re.MULTILINE))
    known = exported | {metric.name for metric in ALL_METRICS}
    asked = {name for query in queries(json.loads(DASHBOARD.read_text())) for name in re.findall(r"glm_\w+", query)}
    assert asked and asked <= known
    families = {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name in exported}
    assert families <= {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name in asked}


@pytest.mark.parametrize("endpoint", ["ftp://x", "collector:4318"])
def test_an_endpoint_for_traces_is_a_url(endpoint: str) -> None:
    with pytest.raises(ValueError, match="otlp_endpoint"):
        GatewaySettings(otlp_endpoint=endpoint)
