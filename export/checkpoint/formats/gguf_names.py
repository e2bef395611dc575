"""What llama.cpp's converter calls the tensors of this model, and what an unquantised checkpoint calls them."""

from __future__ import annotations

import re

_TEXT, _VISION = "model.language_model", "model.visual"
_WHOLE = {
    "token_embd": f"{_TEXT}.embed_tokens",
    "output_norm": f"{_TEXT}.norm",
    "output": "lm_head",
    "v.norm_embd": f"{_VISION}.post_conv_layernorm",
    "v.post_ln": f"{_VISION}.post_layernorm",
    "v.position_embd": f"{_VISION}.embeddings.position_embedding",
    "v.patch_embd": f"{_VISION}.patch_embed.proj",
    "mm.patch_merger": f"{_VISION}.downsample",
    "mm.model.fc": f"{_VISION}.merger.proj",
    "mm.post_norm": f"{_VISION}.merger.post_projection_norm",
    "mm.gate": f"{_VISION}.merger.gate_proj",
    "mm.up": f"{_VISION}.merger.up_proj",
    "mm.down": f"{_VISION}.merger.down_proj",
}
_OF_A_LAYER = {
    "blk": (
        f"{_TEXT}.layers",
        {
            "attn_norm": "input_layernorm",
            "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj",
            "post_attention_norm": "post_self_attn_layernorm",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
            "post_ffw_norm": "post_mlp_layernorm",
        },
    ),
    "v.blk": (
        f"{_VISION}.blocks",
        {
            "ln1": "norm1",
            "ln2": "norm2",
            "attn_qkv": "attn.qkv",
            "attn_out": "attn.proj",
            "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj",
        },
    ),
}
_LAYER = re.compile(r"(?P<stack>blk|v\.blk)\.(?P<index>\d+)\.(?P<part>\w+)\.(?P<kind>weight|bias)")
SECOND_FRAME = "v.patch_embd.weight.1"
"""The first layer's weights for the second of the two frames that it takes; those for the first have its name."""
PATCHES = f"{_VISION}.patch_embed.proj.weight"
_TURNED = re.compile(r"blk\.\d+\.attn_(?P<which>[qk])\.(weight|bias)")


def checkpoint_name(name: str) -> str | None:
    """The name in an unquantised checkpoint; None for a tensor that this model does not have there."""
    layer = _LAYER.fullmatch(name)
    if layer is not None:
        stack, parts = _OF_A_LAYER[layer["stack"]]
        part = parts.get(layer["part"])
        return None if part is None else f"{stack}.{int(layer['index'])}.{part}.{layer['kind']}"
    stem, _, kind = name.rpartition(".")
    return f"{_WHOLE[stem]}.{kind}" if stem in _WHOLE and kind in ("weight", "bias") else None


def is_turned(name: str) -> str | None:
    """ "q" or "k" for the tensors whose rows are in the order of another kind of rope, else None."""
    found = _TURNED.fullmatch(name)
    return None if found is None else found["which"]
