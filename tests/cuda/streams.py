"""Uses the stream of TensorRT for RTX on the device without a GPU: `python -m tests.cuda.streams`."""

from __future__ import annotations

import json

import numpy as np

from glmserve.engine.runtime.rtx.stream import CudaStream, RtxGpu
from tests.cuda.rehearsal import Runtime


def main() -> None:
    gpu = RtxGpu(0)
    stream, runtime = CudaStream(gpu), Runtime()
    sent = np.arange(1000, dtype=np.float32)
    block = gpu.allocate(2 * sent.nbytes)
    stream.fill_with_zeros(block, 2 * sent.nbytes)
    stream.put(block.address, sent)
    came, zeros, moved = np.empty_like(sent), np.empty_like(sent), np.empty_like(sent)
    stream.get(came, block.address)
    stream.get(zeros, block.address + sent.nbytes)
    gpu.copy(block.address, block.address + sent.nbytes, (sent.nbytes, sent.nbytes), sent.nbytes, 1)
    gpu.wait()
    stream.get(moved, block.address + sent.nbytes)
    stream.wait()
    before = runtime.counts()
    graph = stream.capture(lambda: None)
    for _ in range(2):
        stream.replay(graph)
    stream.wait()
    used = runtime.counts().since(before)

    def broken() -> None:
        raise RuntimeError("CUDA error while launching")

    refused = ""
    try:
        stream.capture(broken)
    except RuntimeError as error:
        refused = str(error)
    stream.put(block.address, sent)  # the stream captures no more
    stream.wait()
    found = {
        "capability": gpu.compute_capability(),
        "came_back": bool((came == sent).all()),
        "zeros": not zeros.any(),
        "moved": bool((moved == sent).all()),
        "graphs": used["graphs"],
        "replays": used["graph_launches"],
        "refused": refused,
        "faults": runtime.faults(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
