"""A picture as a tensor."""

import numpy as np
import torch


def pil_to_tensor(picture):
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)
