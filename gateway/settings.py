"""Every choice of a deployment, read once from GLM_GATEWAY_* variables into one frozen object."""

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
from glmserve.limits import RESPONSE_TIMEOUT_S
from glmserve.system import cpu_count
from glmserve.system.env_settings import read_settings

PREFIX = "GLM_GATEWAY_"
_LARGEST_IMAGE = 89_000_000  # pixels; above it Pillow begins to warn on its own

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
"""Written with commas in between."""
_Networks = Annotated[_List, AfterValidator(lambda v: tuple(str(ipaddress.ip_network(text)) for text in v))]
_Name = Annotated[str, StringConstraints(min_length=1)]
AUTO = "auto"
_MOST_WORKERS = 4
_THREADS_A_CORE, _LEAST_THREADS, _MOST_THREADS = 16, 64, 256


def auto_workers(core_count: int) -> int:
    """One process for every two cores: the other one decodes pictures, which needs no lock of Python's."""
    return min(_MOST_WORKERS, max(1, core_count // 2))


def auto_threads(core_count: int) -> int:
    """Of one process; nearly all of them wait for the model at any time."""
    return min(_MOST_THREADS, max(_LEAST_THREADS, _THREADS_A_CORE * core_count))


def auto_image_decoders(core_count: int) -> int:
    """All cores but one, which is left to refuse and to stream."""
    return max(1, core_count - 1)


def _from_cores(count: Callable[[int], int]) -> BeforeValidator:
    """Lets a number be `auto`: what the machine's cores make of it."""
    return BeforeValidator(lambda value: count(cpu_count.cores()) if value == AUTO else value)


class GatewaySettings(BaseSettings):
    """The gateway's settings; each field is the variable GLM_GATEWAY_<FIELD IN CAPITALS>."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    build: Path = Field(default=Path("builds/current"), description="Folder of the build whose models Triton serves.")
    triton_url: Annotated[
        str,
        StringConstraints(pattern=r"^(grpc://[^/\s,]+:\d{1,5}(,grpc://[^/\s,]+:\d{1,5})*|http://[^/\s,]+:\d{1,5})$"),
    ] = Field(
        default="grpc://127.0.0.1:8001",
        description="Where Triton answers: grpc://, several with commas in between or behind one name share the work; "
        "or one http://, whose answers come in one piece.",
    )
    model_name: _Name = Field(default="GLM-4.6V-Flash-WEB", description="The name of the model in every answer.")
    keys_file: Path | None = Field(
        default=None, description="API keys, as `python -m gateway keys` writes them; without it nobody needs one."
    )
    no_auth: bool = Field(
        default=False, description="Serve an address that others can reach without API keys, on purpose."
    )
    allowed_addresses: _Networks = Field(
        default=(), description="Networks (CIDR) that may use the service; none named, and all may."
    )
    trusted_proxies: Annotated[int, Field(ge=0, le=16)] = Field(
        default=0, description="Our own proxies in front: that many entries of X-Forwarded-For are believed."
    )
    requests_per_minute: _Count = Field(
        default=120, description="Requests a minute of one key, or one address without."
    )
    concurrent_requests: _Count = Field(default=16, description="Requests at a time of one key, in one worker.")
    image_tokens_per_minute: _Count = Field(default=200_000, description="Picture tokens a minute of one key.")
    address_requests_per_minute: _Count = Field(
        default=600, description="Requests a minute from one address, right or wrong key."
    )
    address_concurrent_requests: _Count = Field(
        default=64, description="Requests at a time from one address, of all its keys together, in one worker."
    )
    address_image_tokens_per_minute: _Count = Field(
        default=1_000_000, description="Picture tokens a minute from one address, of all its keys together."
    )
    redis_url: Annotated[str, StringConstraints(pattern=r"^(redis(s|\+unix)?://\S+)?$")] = Field(
        default="", description="Where the counts of all workers are kept; without it each counts by itself."
    )
    audit_file: Path | None = Field(
        default=None, description="A log of who asked about which picture, each picture as its SHA-256 only."
    )
    otlp_endpoint: Annotated[str, StringConstraints(pattern=r"^(https?://\S+)?$")] = Field(
        default="", description="Where traces go (OTLP over HTTP); without it they are only passed on to Triton."
    )
    metrics_folder: Path | None = Field(
        default=None, description="Where several workers keep the numbers of /metrics; chosen at the start if not set."
    )
    cors_origins: _List = Field(default=(), description="Sites whose pages may call this service from a browser.")
    admission_tokens: _Count = Field(
        default=16 * 8192, description="Tokens (prompt and answer) of all requests that one worker lets run together."
    )
    max_waiting: Annotated[int, Field(ge=0)] = Field(
        default=16, description="Requests that may wait for such room; more are a 503."
    )
    model_aliases: _List = Field(default=(), description="Other names that requests may call the model by.")
    thinking: bool = Field(
        default=False, description="Whether /v1/chat/completions thinks where a request does not say."
    )
    image_hosts: _List = Field(
        default=(), description="Hosts that pictures may be fetched from by URL; none, and URLs are refused."
    )
    image_fetch_timeout_s: _Seconds = Field(default=10.0, description="Time in which such a picture must be there.")
    bind: _Name = Field(default="127.0.0.1:5000", description="Address and port of the web server.")
    threads: Annotated[_Count, _from_cores(auto_threads)] = Field(
        default=AUTO,
        validate_default=True,
        description="Requests one worker process answers at a time; `auto` is 16 a core, from 64 to 256.",
    )
    workers: Annotated[_Count, _from_cores(auto_workers)] = Field(
        default=AUTO, validate_default=True, description="Worker processes; `auto` is one for two cores, at most 4."
    )
    graceful_timeout_s: _Count = Field(default=30, description="Seconds for running requests to end at a shutdown.")
    max_body_bytes: _Bytes = Field(default=20 * 1024**2, description="Largest request body; more is a 413.")
    max_json_bytes: _Bytes = Field(
        default=16 * 1024**2, description="Largest request body that is no form, but JSON; more is a 413."
    )
    body_timeout_s: _Seconds = Field(default=30.0, description="Time in which a request body must have arrived.")
    max_image_bytes: _Bytes = Field(default=15 * 1024**2, description="Largest picture file once base64 is undone.")
    max_image_pixels: Annotated[int, Field(ge=1, le=_LARGEST_IMAGE)] = Field(
        default=50_000_000, description="Most pixels of a picture, read from its header before it is decoded."
    )
    max_image_side: _Count = Field(default=2048, description="Pixels of a picture's longer side.")
    large_images: Literal["downscale", "refuse"] = Field(
        default="downscale", description="What happens to a picture with a longer side: `downscale` or `refuse`."
    )
    heartbeat_s: _Seconds = Field(
        default=5.0, description="Silence before the first word of a stream after which its client is sent a comment."
    )
    max_prompt_chars: _Count = Field(
        default=200_000, description="Characters of the longest prompt, its thoughts, tool calls and tools among them."
    )
    context_tokens: _Count = Field(
        default=8192,
        description="Tokens of prompt, picture and answer; the checkpoint may bound it further.",
    )
    image_decoders: Annotated[_Count, _from_cores(auto_image_decoders)] = Field(
        default=AUTO,
        validate_default=True,
        description="Pictures one worker decodes at a time; `auto` leaves one core to refuse and to stream with.",
    )
    image_memory_bytes: _Bytes = Field(
        default=176 * 1024**2, description="Memory that decoding one image may take; an image that needs more is a 400."
    )
    image_cpu_s: _Seconds = Field(
        default=0.8,
        description="Processor time that decoding one image may take, beside 30 ns a pixel; one that needs more is a "
        "400.",
    )
    deadline_s: _Seconds = Field(default=30.0, description="Time for one answer once its request was read.")
    response_timeout_s: _Seconds = Field(
        default=RESPONSE_TIMEOUT_S, description="Silence between two messages of an answer after which it is given up."
    )
    canary_timeout_s: _Seconds = Field(default=10.0, description="Time for the canary question that readiness asks.")
    canary_cache_s: _Seconds = Field(default=5.0, description="How long readiness stands by its last finding.")

    @model_validator(mode="after")
    def _is_safe(self) -> GatewaySettings:
        if self.keys_file is None and not self.no_auth and not _is_loopback(self.bind):
            raise ValueError(
                f"{PREFIX}BIND={self.bind} can be reached by others, and no API keys are set: name their file in "
                f"{PREFIX}KEYS_FILE (python -m gateway keys create), or set {PREFIX}NO_AUTH=true to do without."
            )
        return self

    def shown(self) -> dict[str, str]:
        """What may be written into a log at the start: what is not the default, but for the password in an address."""
        values = {name: (getattr(self, name), field.default) for name, field in type(self).model_fields.items()}
        texts = {
            name: ",".join(value) if isinstance(value, tuple) else str(value)
            for name, (value, default) in values.items()
            if value != default
        }
        return {name: _PASSWORD.sub("://***@", text) for name, text in texts.items()}

    @staticmethod
    def read() -> GatewaySettings:
        """The settings of this environment, and below it of the file that GLM_GATEWAY_FILE names (NAME=value lines).

        Raises BadSettings, for a GLM_GATEWAY_ name that is none too.
        """
        file = os.environ.get(_FILE)
        if file is not None and not Path(file).is_file():
            raise BadSettings(f"{_FILE}={file}: there is no such file.")
        return read_settings(GatewaySettings, file, {_FILE})


def _is_loopback(bind: str) -> bool:
    host = bind.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or bind.startswith("unix:")


def settings_table() -> str:
    """All settings as a markdown table, as the README shows it."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in GatewaySettings.model_fields.items():
        default = "none" if field.default in ((), "", None) else f"`{field.default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"
