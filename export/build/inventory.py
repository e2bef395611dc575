"""What a build will consist of, worked out from headers alone: every file and its size, and what each tensor costs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from export.build.onnx_writer import graph_bytes, refer_to_file, tensors_of, unwritten, weights_file
from export.build.spec import VISION_CONFIG_PATH, BuildSpec
from export.build.tensor_writer import offsets_of
from export.checkpoint.hard_links import linkable, refer
from export.graph.standard_ops import share, standard_of, weights_in_files
from export.rtx.engines import forecast
from glmserve.build.manifest import CANARY_FOLDER, CHECKPOINT_FOLDER, DECODER_PATH, MANIFEST_FILE, REPOSITORY_FOLDER
from glmserve.build.rtx_engines import RTX_FOLDER
from glmserve.system.bundled_files import MODEL_REPOSITORY

_MANIFEST_LINE = 80
"""Bytes of a file's line in the manifest, its name aside."""


@dataclass(frozen=True)
class BuildInventory:
    """`files` maps paths in the build to bytes (about, for engines of TensorRT for RTX); `linked` are the checkpoint's
    own, which take no room where the file system can link. `memory_bytes` is what making the build adds to the process
    at its peak, or takes in another that builds an engine; `weights` is the size of all that a server loads: graphs and
    weights, or engines."""

    files: dict[str, int]
    linked: frozenset[str]
    memory_bytes: int
    weights: int

    def new_bytes(self, can_link: bool) -> int:
        """Bytes that the disk must have room for."""
        return sum(size for name, size in self.files.items() if not (can_link and name in self.linked))


def inventory(spec: BuildSpec) -> BuildInventory:
    """Puts the graphs together without a number in them. Raises BadShard for a tensor that is missing or misshapen."""
    files = _small_files(spec)
    linked: set[str] = set()
    placed = {}
    kept = used = largest = 0
    for path, model in spec.graphs(spec.headers):
        graph = Path(path)
        if path == DECODER_PATH:
            for source, held in linkable(model, spec.weights).items():
                linked.add(str(graph.parent / source.name))
                files[str(graph.parent / source.name)] = source.stat().st_size
                used += sum(found.length for _, found in held)
                for value, found in held:
                    refer(value, found, graph.parent)
        values = unwritten(model)
        tensors = tensors_of(values)
        largest = max([largest, *(spec.headers.peaks.get(str(value.name), 0) for value in values)])
        kept = max(kept, sum(tensor.nbytes for tensor in tensors if not isinstance(tensor, ir.LazyTensor)))
        if tensors:
            files[str(weights_file(graph))] = offsets_of(tensors)[-1]
            used += offsets_of(tensors)[-1]
            refer_to_file(values, weights_file(graph))
        files[path] = len(graph_bytes(model))
        used += files[path]
        placed[path] = weights_in_files(model)
    for path, model in spec.standard_graphs(spec.headers):
        share(model, placed[path])
        files[str(standard_of(Path(path)))] = len(graph_bytes(model))
    engines = spec.engines(spec.headers)
    built = 0
    if engines is not None:
        decoder, vision = engines
        plans, built = forecast([vision, *decoder])
        files |= {f"{Path(DECODER_PATH).parent}/{RTX_FOLDER}/{name}": size for name, size in plans.items()}
        used = sum(plans.values())
    files[MANIFEST_FILE] = sum(len(json.dumps(name)) + _MANIFEST_LINE for name in files)
    return BuildInventory(dict(sorted(files.items())), frozenset(linked), max(kept + largest, built), used)


def _small_files(spec: BuildSpec) -> dict[str, int]:
    files = {f"{CHECKPOINT_FOLDER}/{path.name}": path.stat().st_size for path in spec.small_files}
    for path in (*MODEL_REPOSITORY.rglob("*.py"), *MODEL_REPOSITORY.rglob("*.pbtxt")):
        files[f"{REPOSITORY_FOLDER}/{path.relative_to(MODEL_REPOSITORY)}"] = path.stat().st_size
    if spec.vision_config is not None:
        files[VISION_CONFIG_PATH] = len(spec.vision_config.encode())
    golden = spec.folder / "golden"
    for source, name in (("canary.png", "image.png"), ("canary.json", "canary.json")):
        if (golden / source).is_file():
            files[f"{CANARY_FOLDER}/{name}"] = (golden / source).stat().st_size
    return files
