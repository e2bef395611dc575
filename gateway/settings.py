"""The gateway's settings, read once from GLM_GATEWAY_* variables into one frozen object."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from glmserve.errors import BadSettings
from glmserve.limits import (
    CANARY_TIMEOUT_S,
    DEADLINE_S,
    FLOOD_WAIT,
    FLOOD_WAIT_MEANING,
    GRACEFUL_TIMEOUT_S,
    RESPONSE_TIMEOUT_S,
)
from glmserve.system import cpu_count
from glmserve.system.env_settings import read_settings

PREFIX = "GLM_GATEWAY_"
DEADLINE_VARIABLE = f"{PREFIX}DEADLINE_S"
CANARY_TIMEOUT_VARIABLE = f"{PREFIX}CANARY_TIMEOUT_S"
_LARGEST_IMAGE = 400_000_000  # pixels; a camera's largest photo has half as many

_FILE = f"{PREFIX}FILE"
_PASSWORD = re.compile(r"://[^@/]*@")
_Bytes = Annotated[int, Field(ge=1024)]
_Count = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
_List = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(lambda v: tuple(filter(None, map(str.strip, v.split(",")))) if isinstance(v, str) else v),
]
"""Separated by commas."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def private_host(text: str) -> tuple[str, Network | None]:
    """The host, and the network where it lies, of `host[:port][=network]`; raises ValueError for anything else."""
    host, is_given, network = text.partition("=")
    if not host.strip():
        raise ValueError(f"{text} names no host")
    return host.strip(), ipaddress.ip_network(network.strip()) if is_given else None


def _are_private_hosts(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        private_host(text)
    return texts


_Networks = Annotated[_List, AfterValidator(lambda v: tuple(str(ipaddress.ip_network(text)) for text in v))]
_Name = Annotated[str, StringConstraints(min_length=1)]
AUTO = "auto"
_MOST_WORKERS = 4
_THREADS_A_CORE, _LEAST_THREADS, _MOST_THREADS = 16, 64, 256


def auto_workers(core_count: int) -> int:
    """One process per two cores: the other core decodes images, which needs no lock of Python's."""
    return min(_MOST_WORKERS, max(1, core_count // 2))


def auto_threads(core_count: int) -> int:
    """Threads of one process; at any time nearly all of them wait for the model."""
    return min(_MOST_THREADS, max(_LEAST_THREADS, _THREADS_A_CORE * core_count))


def auto_image_decoders(core_count: int) -> int:
    """All cores but one, which stays free for refusals and streams."""
    return max(1, core_count - 1)


def _from_cores(count: Callable[[int], int]) -> BeforeValidator:
    """Accepts `auto` for a number, and computes it from the machine's cores."""
    return BeforeValidator(lambda value: count(cpu_count.cores()) if value == AUTO else value)


class GatewaySettings(BaseSettings):
    """The gateway's settings; each field is the variable GLM_GATEWAY_<FIELD IN CAPITALS>."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    build: Path = Field(default=Path("builds/current"), description="Folder of the build that Triton serves.")
    triton_url: Annotated[
        str,
        StringConstraints(pattern=r"^(grpc://[^/\s,]+:\d{1,5}(,grpc://[^/\s,]+:\d{1,5})*|http://[^/\s,]+:\d{1,5})$"),
    ] = Field(
        default="grpc://127.0.0.1:8001",
        description="Address of Triton: grpc://host:port, several separated by commas; "
        "or one http://host:port, without streaming.",
    )
    model_name: _Name = Field(default="GLM-4.6V-Flash-WEB", description="Name of the model in every answer.")
    keys_file: Path | None = Field(
        default=None,
        description="File of API keys (see `python -m gateway keys`). Empty allows requests without a key.",
    )
    no_auth: bool = Field(default=False, description="Allow BIND to be reachable by others without API keys.")
    allowed_addresses: _Networks = Field(
        default=(), description="Networks (CIDR) that may use the service. Empty allows every address."
    )
    trusted_proxies: Annotated[int, Field(ge=0, le=16)] = Field(
        default=0, description="Number of our own proxies in front; that many entries of X-Forwarded-For are trusted."
    )
    exempt_loopback: bool = Field(
        default=False,
        description="Let requests of this machine without a key have no rate limit. Not behind a proxy on it: "
        "one that adds no header makes every request seem to come from here.",
    )
    requests_per_minute: _Count = Field(
        default=120, description="Requests per minute of one key, or of one address without a key."
    )
    concurrent_requests: _Count = Field(default=16, description="Concurrent requests of one key, per worker.")
    image_tokens_per_minute: _Count = Field(default=200_000, description="Image tokens per minute of one key.")
    address_requests_per_minute: _Count = Field(
        default=600, description="Requests per minute from one address, with a right key or a wrong one."
    )
    address_concurrent_requests: _Count = Field(
        default=64, description="Concurrent requests from one address, all its keys together, per worker."
    )
    address_image_tokens_per_minute: _Count = Field(
        default=1_000_000, description="Image tokens per minute from one address, all its keys together."
    )
    redis_url: Annotated[str, StringConstraints(pattern=r"^(redis(s|\+unix)?://\S+)?$")] = Field(
        default="",
        description="Redis with the rate-limit counters of all workers. Empty: each worker counts.",
    )
    audit_file: Path | None = Field(
        default=None, description="Audit log: who asked about which image, each image as its SHA-256."
    )
    otlp_endpoint: Annotated[str, StringConstraints(pattern=r"^(https?://\S+)?$")] = Field(
        default="", description="OTLP endpoint (HTTP) for traces. Empty only passes traces on to Triton."
    )
    metrics_folder: Path | None = Field(
        default=None, description="Folder where several workers share their metrics. Empty uses a temporary folder."
    )
    cors_origins: _List = Field(default=(), description="Origins whose pages may call this service (CORS).")
    admission_tokens: _Count = Field(
        default=16 * 8192, description="Tokens (prompt and answer) of all concurrent requests of one worker."
    )
    max_waiting: Annotated[int, Field(ge=0)] = Field(
        default=16, description="Requests that may wait until these tokens have room; more are a 503."
    )
    flood_wait: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=FLOOD_WAIT, description=f"{FLOOD_WAIT_MEANING} 0 lets MAX_WAITING wait."
    )
    model_aliases: _List = Field(default=(), description="Other model names that requests may use.")
    unknown_fields: Literal["warn", "refuse", "ignore"] = Field(
        default="warn",
        description="Unknown fields: `refuse`, `ignore`, or `warn` in a header, where /v1/chat/vision refuses.",
    )
    thinking: bool = Field(default=False, description="Whether /v1/chat/completions thinks if a request does not say.")
    image_hosts: _List = Field(
        default=(), description="Hosts that images may be fetched from. Empty refuses image URLs."
    )
    image_private_hosts: Annotated[_List, AfterValidator(_are_private_hosts)] = Field(
        default=(),
        description="Hosts of an intranet that images may be fetched from too: `host[:port]` for any private address "
        "but this machine's and link-local ones, or `host[:port]=network` (CIDR) for the addresses of one network.",
    )
    image_fetch_timeout_s: _Seconds = Field(default=10.0, description="Seconds to fetch an image from its URL.")
    bind: _Name = Field(default="127.0.0.1:5000", description="Address and port that the web server listens on.")
    threads: Annotated[_Count, _from_cores(auto_threads)] = Field(
        default=AUTO,
        validate_default=True,
        description="Concurrent requests of one worker process; `auto` is 16 per core, from 64 to 256.",
    )
    workers: Annotated[_Count, _from_cores(auto_workers)] = Field(
        default=AUTO, validate_default=True, description="Worker processes; `auto` is one per two cores, at most 4."
    )
    graceful_timeout_s: _Count = Field(
        default=GRACEFUL_TIMEOUT_S, description="Seconds for running requests to finish at a shutdown."
    )
    max_body_bytes: _Bytes = Field(default=20 * 1024**2, description="Largest request body in bytes; more is a 413.")
    max_json_bytes: _Bytes = Field(
        default=16 * 1024**2, description="Largest JSON body in bytes (forms excepted); more is a 413."
    )
    body_timeout_s: _Seconds = Field(default=30.0, description="Seconds in which a request body must arrive.")
    max_image_bytes: _Bytes = Field(default=15 * 1024**2, description="Largest image file in bytes, base64 decoded.")
    max_image_pixels: Annotated[int, Field(ge=1, le=_LARGEST_IMAGE)] = Field(
        default=200_000_000, description="Most pixels of an image, checked in its header before it is decoded."
    )
    max_image_side: _Count = Field(
        default=2048,
        description="Most pixels of an image's longer side, or of a video's frames as the model reads them.",
    )
    large_images: Literal["downscale", "refuse"] = Field(
        default="downscale", description="What to do with an image whose side is longer: `downscale` or `refuse`."
    )
    max_video_bytes: _Bytes = Field(
        default=32 * 1024**2,
        description="Largest video file in bytes, base64 decoded. A body that holds one must be allowed too "
        "(MAX_BODY_BYTES, MAX_JSON_BYTES).",
    )
    max_video_s: _Seconds = Field(default=600.0, description="Seconds that a video may last.")
    max_video_frames: _Count = Field(
        default=36_000, description="Most frames of a video's file, whatever the model sees of them."
    )
    max_video_frame_pixels: Annotated[int, Field(ge=1, le=_LARGEST_IMAGE)] = Field(
        default=4096 * 2304, description="Most pixels of one frame of a video."
    )
    max_video_pixels: _Count = Field(
        default=5_000_000_000,
        description="Most pixels of all frames of a video's file together: some 80 s of 1920 x 1080 at 30 a second.",
    )
    large_videos: Literal["downscale", "refuse"] = Field(
        default="downscale",
        description="What to do with a video whose frames have a side over MAX_IMAGE_SIDE or do not fit into "
        "CONTEXT_TOKENS: `downscale` or `refuse`.",
    )
    video_cache_bytes: Annotated[int, Field(ge=0)] = Field(
        default=128 * 1024**2,
        description="Bytes of decoded frames that one worker keeps for the next question about the same video; 0 keeps "
        "none.",
    )
    heartbeat_s: _Seconds = Field(
        default=5.0,
        description="Seconds without a first token after which a stream's client is sent a comment.",
    )
    max_prompt_chars: _Count = Field(
        default=200_000, description="Most characters of a prompt, including reasoning, tool calls and tools."
    )
    context_tokens: _Count = Field(
        default=8192,
        description="Most tokens of prompt, images and answer; the checkpoint may allow fewer.",
    )
    image_decoders: Annotated[_Count, _from_cores(auto_image_decoders)] = Field(
        default=AUTO,
        validate_default=True,
        description="Images that one worker decodes at a time; `auto` is all cores but one.",
    )
    image_memory_bytes: _Bytes = Field(
        default=176 * 1024**2, description="Bytes of memory that decoding one image may take; more is a 400."
    )
    image_cpu_s: _Seconds = Field(
        default=0.8,
        description="Seconds of processor time that decoding one image may take, plus 30 ns per pixel of the first "
        "50 million; more is a 400.",
    )
    deadline_s: _Seconds = Field(
        default=DEADLINE_S, description="Seconds for an answer, from when its request was read."
    )
    response_timeout_s: _Seconds = Field(
        default=RESPONSE_TIMEOUT_S, description="Seconds between two messages of an answer after which it is cancelled."
    )
    canary_timeout_s: _Seconds = Field(
        default=CANARY_TIMEOUT_S,
        description="Seconds for the readiness check's canary question. The first may take longer, and the next ones "
        "four times as long as the last.",
    )
    canary_cache_s: _Seconds = Field(default=5.0, description="Seconds that the readiness check keeps its last result.")

    @model_validator(mode="after")
    def _is_safe(self) -> GatewaySettings:
        if self.keys_file is None and not self.no_auth and not is_loopback(self.bind):
            raise ValueError(
                f"{PREFIX}BIND={self.bind} can be reached by others, and no API keys are set: name their file in "
                f"{PREFIX}KEYS_FILE (python -m gateway keys create), or set {PREFIX}NO_AUTH=true to allow everybody."
            )
        return self

    def shown(self) -> dict[str, str]:
        """The settings to log at the start: those that differ from their defaults, with passwords masked."""
        values = {name: (getattr(self, name), field.default) for name, field in type(self).model_fields.items()}
        texts = {
            name: ",".join(value) if isinstance(value, tuple) else str(value)
            for name, (value, default) in values.items()
            if value != default
        }
        return {name: _PASSWORD.sub("://***@", text) for name, text in texts.items()}

    @staticmethod
    def read() -> GatewaySettings:
        """The settings of this environment; what it leaves out comes from the file that GLM_GATEWAY_FILE names.

        Raises BadSettings for an unknown or invalid setting.
        """
        file = os.environ.get(_FILE)
        if file is not None and not Path(file).is_file():
            raise BadSettings(f"{_FILE}={file}: there is no such file.")
        return read_settings(GatewaySettings, file, {_FILE})


def is_loopback(bind: str) -> bool:
    """Whether only this machine can reach an address that the web server listens on."""
    host = bind.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or bind.startswith("unix:")


def settings_table() -> str:
    """All settings as a markdown table, as docs/settings.md shows it."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in GatewaySettings.model_fields.items():
        default = "none" if field.default in ((), "", None) else f"`{field.default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"
