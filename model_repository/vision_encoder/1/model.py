"""Triton's side of the picture encoder: batches of equal patch grids in, features out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from glmserve.contract import IMAGE_FEATURES, VISION_INPUTS
from glmserve.engine.serving import open_vision


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self._vision = open_vision(Path(args["model_repository"], args["model_version"]))

    def execute(self, requests: list) -> list:
        try:
            columns = [
                [pb_utils.get_input_tensor_by_name(r, t.name).as_numpy() for r in requests] for t in VISION_INPUTS
            ]
            features = self._vision.run(*map(_together, columns))  # [B, image tokens, hidden]
        except Exception:  # Triton would send the traceback to every client
            error = pb_utils.TritonError("internal|The picture encoder failed.")
            return [pb_utils.InferenceResponse([], error) for _ in requests]
        ends = np.cumsum([len(rows) for rows in columns[0]])
        parts = np.split(features, ends[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor(IMAGE_FEATURES.name, part)]) for part in parts]


def _together(arrays: list[np.ndarray]) -> np.ndarray:
    """One batch of all; a picture by itself is not copied for it."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
