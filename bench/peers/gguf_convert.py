"""Runs llama.cpp's own converter on a checkpoint, in the peers' environment: `gguf_convert.py SOURCES OPTION ...`.

The converter knows tokenizers by a hash of what they make of a text, and refuses others. The synthetic checkpoints have
the demo's, which cuts words as GPT-2's does but for whole Chinese words; no question of a measurement holds one. GLM's
own it knows.
"""

import importlib
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sources, *sys.argv[1:] = sys.argv[1:]
    sys.path[:1] = [sources, str(Path(sources) / "gguf-py")]
    text_model = importlib.import_module("conversion").TextModel
    by_hash = text_model.get_vocab_base_pre

    def known_or_gpt2(model: object, tokenizer: object) -> str:
        """How the tokenizer cuts words, as llama.cpp names it."""
        try:
            return str(by_hash(model, tokenizer))
        except NotImplementedError:
            return "gpt-2"

    text_model.get_vocab_base_pre = known_or_gpt2
    runpy.run_path(str(Path(sources) / "convert_hf_to_gguf.py"), run_name="__main__")
