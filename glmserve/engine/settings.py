"""The engine's settings, read once from the environment when Triton loads the models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from glmserve.limits import FLOOD_WAIT, FLOOD_WAIT_MEANING
from glmserve.system import cpu_count
from glmserve.system.env_settings import read_settings

DeviceChoice = Literal["auto", "cpu", "cuda"]
RuntimeName = Literal["auto", "ort", "rtx"]
LEAST_ROW_TOKENS = 16


def _compute_threads() -> int:
    return cpu_count.compute_threads()


def _half_the_cores() -> int:
    return max(1, cpu_count.cores() // 2)


class EngineSettings(BaseSettings):
    """Read from variables that begin with GLM_ENGINE_."""

    model_config = SettingsConfigDict(env_prefix="GLM_ENGINE_", frozen=True, extra="forbid")

    device: DeviceChoice = Field(
        default="auto", description="Where the graphs run: cpu, cuda, or auto: where the build was exported for."
    )
    runtime: RuntimeName = Field(
        default="auto", description="What runs the graphs: ort, rtx (TensorRT for RTX), or auto: what the build is for."
    )
    device_number: int = Field(default=0, ge=0, description="Index of the GPU.")
    cuda_graphs: bool = Field(default=True, description="Capture decode steps as CUDA graphs, one for each bucket.")
    memory_utilization: float = Field(
        default=0.9, gt=0, le=1, description="Share of the device's memory that the memory plan may use."
    )
    slots: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="Requests that hold KV and decode together; where nobody sets it, fewer if memory holds no more.",
    )
    warm_rows: int = Field(
        default=4,
        ge=0,
        le=1024,
        description="Additional KV rows that hold cached prefixes of ended requests; where nobody sets it, fewer if "
        "memory holds no more.",
    )
    context_tokens: int = Field(
        default=8192,
        ge=LEAST_ROW_TOKENS,
        description="Tokens a request may hold; the checkpoint may bound it further.",
    )
    short_tokens: int = Field(
        default=0,
        ge=0,
        description="Tokens of a short KV row (at least 16), where requests begin; 0 gives every slot a whole context.",
    )
    long_rows: int = Field(
        default=2, ge=1, le=1024, description="KV rows of the whole context, where there are short ones."
    )
    chunk_tokens: int = Field(
        default=256, ge=1, description="Most prompt tokens prefilled in a step; fewer while sequences decode."
    )
    min_chunk_tokens: int = Field(
        default=0,
        ge=0,
        description="Smallest prefill chunk, whose tokens cost about one decode step; 0 means 8 on CPUs, 256 on CUDA.",
    )
    draft_tokens: int = Field(
        default=6, ge=0, le=32, description="Most draft tokens in a step (speculative decoding); 0 turns it off."
    )
    max_waiting: int = Field(default=64, ge=1, description="Requests that may wait for a slot; more are refused.")
    max_waiting_tokens: int = Field(default=262_144, ge=1, description="Prompt tokens that may wait for a slot.")
    flood_wait: float = Field(
        default=FLOOD_WAIT, ge=0, allow_inf_nan=False, description=f"{FLOOD_WAIT_MEANING} 0 lets MAX_WAITING wait."
    )
    image_cache_mib: int = Field(default=512, ge=0, description="MiB of image features kept for reuse.")
    share_caches: bool = Field(
        default=False,
        description="Share cached prompts and images between API keys; faster, but times then tell what others sent.",
    )
    threads: int = Field(default_factory=_compute_threads, ge=1, description="CPU threads of the decoder.")
    vision_threads: int = Field(default_factory=_half_the_cores, ge=1, description="CPU threads of the image encoder.")
    require_certificate: bool = Field(
        default=True, description="Refuse a build without a valid certificate; false serves it with a warning."
    )
    image_readers: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Threads that read requests with images; images at a time for a Triton model that encodes them.",
    )

    @field_validator("short_tokens")
    @classmethod
    def _is_a_row(cls, tokens: int) -> int:
        if 0 < tokens < LEAST_ROW_TOKENS:
            raise ValueError(f"a row of KV has at least {LEAST_ROW_TOKENS} tokens; 0 makes no short rows")
        return tokens

    @staticmethod
    def read() -> EngineSettings:
        """The settings of this environment; raises BadSettings for an unknown name or an invalid value."""
        return read_settings(EngineSettings)

    @property
    def short_rows(self) -> int:
        """KV rows of `short_tokens`: one for every slot, and those that hold cached prefixes; 0 where a row of the
        whole context would be no longer."""
        return self.slots + self.warm_rows if 0 < self.short_tokens < self.context_tokens else 0

    @property
    def rows(self) -> int:
        """All KV rows."""
        return self.short_rows + self.long_rows if self.short_rows else self.slots + self.warm_rows

    @property
    def buckets(self) -> tuple[int, ...]:
        """Row counts that decode steps are padded to; none on a CPU, which runs any number of rows."""
        if self.device != "cuda":
            return ()
        powers = [1 << power for power in range(self.slots.bit_length()) if 1 << power < self.slots]
        return (*powers, self.slots)

    @property
    def least_chunk_tokens(self) -> int:
        """`min_chunk_tokens`, or the device's default: where reading weights takes as long as multiplying by them."""
        return self.min_chunk_tokens or (256 if self.device == "cuda" else 8)
