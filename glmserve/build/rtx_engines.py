"""The engines of TensorRT for RTX in a build: which there are, and what they can hold.

```
model_repository/glm4v/1/rtx/
  engines.json         this module's RtxEngines
  layers.json          the layers of each, for readers
  vision.plan          the image encoder
  decoder.00.plan …    the decoder's parts, run one after another
```
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from glmserve.errors import BadArtifact

RTX_FOLDER = "rtx"
ENGINES_FILE = "engines.json"
LAYERS_FILE = "layers.json"
VISION_PLAN = "vision.plan"
RESIDUAL, NEXT_RESIDUAL = "residual", "next_residual"
"""What a part of the decoder takes from the one before and gives to the one after it: [1, T, hidden], or [1, N, hidden]
after the last layer, in the build's precision."""


@dataclass(frozen=True)
class RtxEngines:
    """Library and version that made them and alone can run them, for which compute capabilities (all it knows where
    there are none), and their sizes: most requests that decode together, tokens of a row of KV, most prompt tokens in a
    step. `decoder` names the plans of the decoder's parts in order."""

    library: str
    version: str
    compute_capabilities: list[str]
    rows: int
    context: int
    chunk_tokens: int
    decoder: list[str]

    @property
    def title(self) -> str:
        """One line for the manifest and the log: `tensorrt-rtx 1.7.1.116 for 8.6, 8.9`."""
        return f"{self.library} {self.version} for {', '.join(self.compute_capabilities) or 'every GPU it knows'}"

    @staticmethod
    def read(folder: Path) -> RtxEngines:
        """What a build's folder of engines lists; raises BadArtifact when it has none or the list is broken."""
        path = folder / ENGINES_FILE
        try:
            return RtxEngines(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            raise BadArtifact("The build has no engines for TensorRT for RTX: export it with --target rtx.") from None
        except (OSError, ValueError, TypeError):
            raise BadArtifact(f"{path} cannot be read as a list of engines.") from None

    def write(self, folder: Path) -> None:
        (folder / ENGINES_FILE).write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", "utf-8")
