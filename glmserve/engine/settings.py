"""The engine's settings, read once from the environment when Triton loads the models."""

from __future__ import annotations

import os

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class EngineSettings(BaseSettings):
    """Read from variables that begin with GLM_ENGINE_."""

    model_config = SettingsConfigDict(env_prefix="GLM_ENGINE_", frozen=True, extra="ignore")

    slots: int = Field(16, ge=1, le=1024, description="Requests that hold KV and decode together.")
    context_tokens: int = Field(
        8192, ge=16, description="Tokens of prompt and answer a slot holds; never more than the model's own positions."
    )
    chunk_tokens: int = Field(256, ge=1, description="Prompt tokens run between two decode steps.")
    max_waiting: int = Field(64, ge=1, description="Requests that may wait for a slot before new ones are refused.")
    threads: int = Field(
        max(1, (os.cpu_count() or 1) // 2), ge=1, description="Processor threads of the decoder (CPU only)."
    )
    vision_threads: int = Field(
        max(1, (os.cpu_count() or 1) // 2), ge=1, description="Processor threads of the picture encoder (CPU only)."
    )
    picture_readers: int = Field(4, ge=1, le=64, description="Requests whose pictures are encoded at the same time.")
