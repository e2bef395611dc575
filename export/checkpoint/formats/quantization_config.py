"""What `config.json` says about how its checkpoint is quantised."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmserve.errors import BadArtifact

NAME = "config.json: quantization_config"


@dataclass(frozen=True)
class QuantizationConfig:
    """The section `quantization_config`; `method` is its `quant_method`."""

    method: str
    values: Mapping[str, Any]

    @staticmethod
    def read(folder: Path) -> QuantizationConfig | None:
        """None where there is none; a file that cannot be read is left to whoever needs the rest of it."""
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        of_text = _section(config, "text_config")
        held = _section(config, "quantization_config") or _section(of_text, "quantization_config")
        if not held:
            return None
        return QuantizationConfig(str(held.get("quant_method", "")), held)

    def word(self, key: str, default: str = "") -> str:
        """A value in words, lower case; numbers and the like as Python writes them."""
        value = self.values.get(key, default)
        return str(default if value is None else value).lower()

    def refused(self, why: str, remedy: str) -> BadArtifact:
        """The error that says why such a checkpoint is not read, and what to do."""
        return BadArtifact(f"{NAME}: {why}. {remedy}")


def _section(values: Any, key: str) -> dict[str, Any]:
    held = values.get(key) if isinstance(values, dict) else None
    return held if isinstance(held, dict) else {}
