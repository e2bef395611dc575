"""What a safetensors file says of itself: the tensors' names, types, shapes and places, without their numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

METADATA = "__metadata__"
"""The one entry of a header that is no tensor."""


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the tensors' bytes begin, and the header: eight bytes tell the length of the JSON that follows them.

    `data_offsets` of an entry count from there. Raises ValueError when it is none, OSError when it cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return 8 + length, json.loads(file.read(length) if length <= path.stat().st_size else b"")
