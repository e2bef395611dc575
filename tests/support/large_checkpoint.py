"""Makes a checkpoint of some hundred million random weights, without torch and in a second or two."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
from safetensors.numpy import save_file

from export.checkpoint.weights import Weights
from export.graph.decoder import decoder_graph
from export.graph.vision_encoder import vision_graph
from glmserve.model.config import PROCESSOR_FILES, Checkpoint

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
_DRAWN = 65_537


class RecordingWeights(Weights):
    """Weights of nothing but zeros that remember what was asked for."""

    def __init__(self) -> None:
        super().__init__(Path(), {})
        object.__setattr__(self, "asked", {})

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        self.asked[name] = shape
        return np.broadcast_to(np.float32(0), shape)

    def lazy(self, name: str, shape: tuple[int, ...], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.LazyTensor:
        self.asked[name] = shape
        return super().lazy(name, shape, dtype)


def make_large(folder: Path, layers: int = 17, hidden: int = 1024, ffn: int = 3424) -> Path:
    """The demo's processor files and a wider text model in fp16; with the defaults it has 220 million weights."""
    folder.mkdir(parents=True)
    for name in PROCESSOR_FILES:
        (folder / name).write_bytes((DEMO / name).read_bytes())
    config = json.loads((DEMO / "config.json").read_text("utf-8"))
    config["text_config"] |= {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "intermediate_size": ffn,
        "head_dim": 64,
    }
    config["text_config"]["rope_parameters"]["mrope_section"] = [4, 6, 6]
    config["vision_config"]["out_hidden_size"] = hidden
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    weights, checkpoint = RecordingWeights(), Checkpoint.read(folder)
    vision_graph(checkpoint, weights)
    decoder_graph(checkpoint, weights)
    random = np.random.default_rng(0)
    save_file({name: _random(random, shape) for name, shape in weights.asked.items()}, folder / "model.safetensors")
    return folder


def _random(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The same numbers over and over: drawing each would take longer than exporting them."""
    if len(shape) == 1:
        return np.ones(shape, np.float16)
    drawn = random.standard_normal(_DRAWN, np.float32) * np.float32(np.prod(shape[1:]) ** -0.5)
    return np.resize(drawn.astype(np.float16), shape)
