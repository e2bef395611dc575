"""The engine's settings, read once from the environment when Triton loads the models."""

from __future__ import annotations

import os

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class EngineSettings(BaseSettings):
    """Read from variables that begin with GLM_ENGINE_."""

    model_config = SettingsConfigDict(env_prefix="GLM_ENGINE_", frozen=True, extra="ignore")

    slots: int = Field(default=16, ge=1, le=1024, description="Requests that hold KV and decode together.")
    context_tokens: int = Field(
        default=8192, ge=16, description="Tokens a slot holds; the checkpoint may bound it further."
    )
    chunk_tokens: int = Field(default=256, ge=1, description="Prompt tokens run between two decode steps.")
    max_waiting: int = Field(default=64, ge=1, description="Requests that may wait for a slot; more are refused.")
    threads: int = Field(
        default=max(1, (os.cpu_count() or 1) // 2), ge=1, description="Processor threads of the decoder."
    )
    vision_threads: int = Field(
        default=max(1, (os.cpu_count() or 1) // 2), ge=1, description="Processor threads of the picture encoder."
    )
    picture_readers: int = Field(
        default=4, ge=1, le=64, description="Requests whose pictures are read at the same time."
    )
