"""Checks that a checkpoint is the one a build was made from, by its small files and its embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.checkpoint.weights import EMBEDDING, Weights
from export.verify.original import Original
from export.verify.subgraph import Subgraphs
from glmserve.build.manifest import CHECKPOINT_FOLDER, Manifest, decoder_in
from glmserve.errors import BadArtifact
from glmserve.model.config import OPTIONAL_FILES, PROCESSOR_FILES

_ROWS = 16


def check_origin(build: Path, manifest: Manifest, original: Original) -> None:
    """Raises BadArtifact naming what differs, adapters first. Of the weights it reads only some embeddings, which no
    build rounds; the comparison that follows finds out about the others."""
    checkpoint = original.folder
    merged = [adapter["digest"] for adapter in manifest.adapters]
    if [adapter.digest for adapter in original.adapters] != merged:
        raise _other(manifest, checkpoint, _other_adapters(manifest, original))
    for name in (*PROCESSOR_FILES, *OPTIONAL_FILES):
        if _content(build / CHECKPOINT_FOLDER / name) != _content(checkpoint / name):
            raise _other(manifest, checkpoint, f"its {name} is not the build's")
    if not _holds(original.weights, Subgraphs(decoder_in(build)).table(EMBEDDING)):
        raise _other(manifest, checkpoint, "its embeddings are not the build's")


def _other(manifest: Manifest, checkpoint: Path, reason: str) -> BadArtifact:
    return BadArtifact(
        f"Build {manifest.digest} was not made of the checkpoint {checkpoint}: {reason}. Nothing was compared, and its "
        f"certificate stays as it is. Its own checkpoint was called {manifest.source}."
    )


def _other_adapters(manifest: Manifest, original: Original) -> str:
    """That the adapters are not the build's, and which are."""
    merged = [f"{adapter['name']} ({adapter['digest'][:8]})" for adapter in manifest.adapters]
    given = [f"{adapter.name} ({adapter.digest[:8]})" for adapter in original.adapters]
    names = (", then ".join(names) if names else "none" for names in (merged, given))
    return "its adapters are {}, and --lora names {}".format(*names)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _holds(weights: Weights, table: np.ndarray) -> bool:
    """Whether some rows of the embeddings [vocabulary, hidden], spread over all, are the checkpoint's."""
    rows = np.linspace(0, len(table) - 1, _ROWS, dtype=int).tolist()
    return all(
        np.array_equal(weights.read_rows(EMBEDDING, row, row + 1).astype(table.dtype), table[row : row + 1])
        for row in rows
    )
