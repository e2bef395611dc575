"""The engine's metrics: their names and meaning, and a meter that collects and publishes them."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_log = logging.getLogger(__name__)
_PUBLISH_EVERY_S = 0.25
_MOST_SAMPLES = 4096

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_GAPS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric as Prometheus shows it, told from others by identity; `buckets` are a histogram's upper bounds."""

    name: str
    description: str
    kind: Literal["counter", "gauge", "histogram"]
    buckets: tuple[float, ...] = ()


def _counter(name: str, description: str) -> Metric:
    return Metric(name, description, "counter")


def _gauge(name: str, description: str) -> Metric:
    return Metric(name, description, "gauge")


def _histogram(name: str, description: str, buckets: tuple[float, ...] = _SECONDS) -> Metric:
    return Metric(name, description, "histogram", buckets)


RUNNING = _gauge("glm_requests_running", "Requests that hold a slot")
WAITING = _gauge("glm_requests_waiting", "Requests that wait for a slot, preempted ones included")
SLOTS = _gauge("glm_slots", "Requests that can hold a slot at a time")
KV_TOKENS = _gauge("glm_kv_tokens", "Tokens whose KV belongs to a running request")
KV_CACHED_TOKENS = _gauge("glm_kv_warm_tokens", "Tokens of cached prefixes")
KV_CAPACITY = _gauge("glm_kv_capacity_tokens", "Tokens that the KV cache has room for")
IMAGE_CACHE_BYTES = _gauge("glm_image_cache_bytes", "Bytes of cached image features")
STEP_S = _gauge("glm_measured_step_seconds", "A decode step of one request, as measured at the start")
PROMPT_TOKEN_S = _gauge("glm_measured_prompt_token_seconds", "A token of a prompt, as measured at the start")
IMAGE_PATCH_S = _gauge("glm_measured_image_patch_seconds", "A patch of an image, as measured at the start")
HEALTHY = _gauge("glm_engine_healthy", "1 while the engine runs requests")
ALIVE_AT = _gauge("glm_engine_alive_timestamp_seconds", "When the engine's process last showed life, in Unix time")
LOOP_AT = _gauge("glm_engine_loop_timestamp_seconds", "When the engine's loop last turned, in Unix time")
PREFILL_CHUNKS = _counter("glm_prefill_chunks_total", "Prefill chunks run")
DECODE_STEPS = _counter("glm_decode_steps_total", "Decode steps run")
DECODED_ROWS = _counter("glm_decoded_rows_total", "Rows run in decode steps; over the steps, the mean batch size")
GENERATED_TOKENS = _counter("glm_generated_tokens_total", "Tokens generated")
DRAFTED_TOKENS = _counter("glm_drafted_tokens_total", "Draft tokens proposed (speculative decoding)")
ACCEPTED_TOKENS = _counter("glm_accepted_tokens_total", "Draft tokens accepted")
PROMPT_TOKENS = _counter("glm_prompt_tokens_total", "Prompt tokens of started requests")
CACHED_TOKENS = _counter("glm_prompt_tokens_cached_total", "Prompt tokens whose KV came from a cached prefix")
IMAGE_HITS = _counter("glm_image_cache_hits_total", "Images whose features were cached")
IMAGE_MISSES = _counter("glm_image_cache_misses_total", "Images that had to be encoded")
PREEMPTIONS = _counter("glm_preemptions_total", "Running requests that lost their KV row and were prefilled again")
FINISHED = _counter("glm_requests_finished_total", "Requests answered")
FAILED = _counter("glm_requests_failed_total", "Requests ended without a complete answer")
REFUSED = _counter("glm_requests_refused_total", "Requests refused: the queue was full, there was a flood, or no time")
FIRST_TOKEN = _histogram("glm_time_to_first_token_seconds", "From arrival to the first token")
TOKEN_GAP = _histogram("glm_time_between_tokens_seconds", "Longest time between a row's tokens, per decode step", _GAPS)
QUEUE = _histogram("glm_queue_seconds", "From arrival to a slot, image encoding included")
VISION = _histogram("glm_vision_seconds", "Encoding a request's images")
PREFILL = _histogram("glm_prefill_seconds", "From a slot to the first token")
DECODE = _histogram("glm_decode_seconds", "From the first token to the last")
STEP_ROWS = _histogram("glm_decode_step_rows", "Rows of a decode step", _ROWS)

ALL_METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


class Meter:
    """Collects on any thread; `totals` holds every counter and gauge, as tests read them."""

    def __init__(self) -> None:
        self.totals: dict[Metric, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._published: dict[Metric, float] = {}
        self._samples: list[tuple[Metric, float]] = []

    def add(self, metric: Metric, amount: float = 1) -> None:
        with self._lock:
            self.totals[metric] += amount

    def set(self, metric: Metric, value: float) -> None:
        self.totals[metric] = value

    def observe(self, metric: Metric, value: float) -> None:
        """A histogram's sample; dropped when nobody has taken the last few thousand away."""
        with self._lock:
            if len(self._samples) < _MOST_SAMPLES:
                self._samples.append((metric, value))

    def take(self) -> list[tuple[Metric, float]]:
        """Changes since the last call: a gauge's value, a counter's increment, each sample of a histogram."""
        with self._lock:
            samples, self._samples = self._samples, []
            totals = dict(self.totals)
        news = [
            (metric, value - (self._published.get(metric, 0.0) if metric.kind == "counter" else 0.0))
            for metric, value in totals.items()
            if value != self._published.get(metric)
        ]
        self._published = totals
        return news + samples


class Publisher:
    """A thread that passes a meter's changes to `publish`: an update costs about 20 microseconds in Triton."""

    def __init__(self, meter: Meter, publish: Callable[[Metric, float], None]) -> None:
        self._meter = meter
        self._publish = publish
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.wait(_PUBLISH_EVERY_S):
            self._meter.set(ALIVE_AT, time.time())
            try:
                for metric, value in self._meter.take():
                    self._publish(metric, value)
            except Exception:  # this thread's outer edge: numbers that cannot be shown must not end the service
                _log.exception("metrics could not be published")
