"""llama.cpp's server on the same weights, compiled for this machine: what a user would run here instead."""

from __future__ import annotations

from pathlib import Path

from bench.peers import environment
from bench.peers.gguf_files import GgufType, converted
from bench.peers.servers import llama_native
from bench.real_size.export_steps import written_checkpoint
from bench.real_size.meter import used_bytes
from bench.real_size.questions import CLIENTS, compared_questions
from bench.real_size.scene import Scene, StepFailed
from bench.real_size.serve_steps import answers_to, told
from bench.records import Row, rounded
from export.precision import Precision
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.engine.settings import EngineSettings
from glmserve.model.tokenizer import Tokenizer

_CONTEXT_TOKENS = 8192
_TYPES = {Precision.INT4.value: GgufType.Q4_0}
"""Its counterpart of a precision; of all others Q8_0."""


def llama(scene: Scene) -> Row:
    """Converts the checkpoint with llama.cpp's own programs, starts its server with as many threads as the engine
    has, and asks the questions of `serve` that both take."""
    for program in (environment.LLAMA_NATIVE, environment.LLAMA_QUANTIZE):
        if not program.is_file():
            raise StepFailed(
                f"{program} is missing: remove {environment.FOLDER} and run `make real-size STEPS=llama` where a C++ "
                "compiler is, which compiles llama.cpp there."
            )
    kind = _TYPES.get(scene.precision, GgufType.Q8_0)
    tokenizer, threads = Tokenizer.read(scene.build / CHECKPOINT_FOLDER), EngineSettings().threads
    try:
        files = converted(Path(written_checkpoint(scene)), scene.gguf / kind, kind)
    except RuntimeError as error:
        raise StepFailed(str(error)) from None
    answers = list[Row]()
    with llama_native(files, threads, CLIENTS, _CONTEXT_TOKENS) as server:
        scene.say(f"llama: ready after {server.start_s:.0f} s")
        for question in compared_questions(tokenizer):
            for row in answers_to(server.url, question):
                answers.append(row)
                scene.say(f"llama: {row}")
    server_name = f"{environment.llama_native_name()}, {kind.upper()}"
    found = {"server": server_name, "threads": threads, "weights_bytes": used_bytes(scene.gguf / kind)}
    return found | {"ready_s": rounded(server.start_s)} | told(answers)
