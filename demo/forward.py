"""The model's forward pass for training: half precision between the norms, several chats behind each picture."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import Glm4vForConditionalGeneration
from transformers.vision_utils import get_vision_position_ids

from demo.batches import Packed
from glmserve.model.image_processor import Grid

MERGE = 2
HALF = torch.bfloat16


def see(model: Glm4vForConditionalGeneration, patches: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Image features [pictures, tokens, hidden] of normalised patches [pictures, frames, patches, 588] of one grid.

    A still picture is one frame, which stands for two equal ones; a piece of video is two.
    """
    tower = model.model.visual
    images, frames, length, _ = patches.shape
    shape = torch.tensor([[1, grid.rows, grid.columns]])
    places = get_vision_position_ids(shape, MERGE)  # [patches, 2]
    weight, bias = tower.patch_embed.proj.weight, tower.patch_embed.proj.bias  # [out, colours, 2, 14, 14]
    if frames == 1:
        x = _linear(patches[:, 0], weight.sum(dim=2).flatten(1)) + bias
    else:
        x = (
            _linear(patches[:, 0], weight[:, :, 0].flatten(1))
            + _linear(patches[:, 1], weight[:, :, 1].flatten(1))
            + bias
        )
    x = _norm(x.float(), tower.post_conv_layernorm)
    cos, sin = (table.to(HALF)[:, None] for table in tower.rotary_pos_emb(x, places))
    nothing = torch.zeros(length, x.shape[-1])
    x = x.float() + tower.embeddings(nothing, [length], shape, places[:, 0], places[:, 1])
    for block in tower.blocks:
        attention = block.attn
        heads, size = attention.num_heads, attention.head_dim
        qkv = _linear(_norm(x, block.norm1), attention.qkv.weight).view(images, length, 3, heads, size)
        query, key = _half_turned(qkv[:, :, 0], cos, sin), _half_turned(qkv[:, :, 1], cos, sin)
        query, key, value = (part.transpose(1, 2) for part in (query, key, qkv[:, :, 2]))
        mixed = (query @ key.transpose(2, 3) * size**-0.5).softmax(-1) @ value
        x = x + _linear(mixed.transpose(1, 2).reshape(images, length, -1), attention.proj.weight)
        h, mlp = _norm(x, block.norm2), block.mlp
        gated = functional.silu(_linear(h, mlp.gate_proj.weight)) * _linear(h, mlp.up_proj.weight)
        x = x + _linear(gated, mlp.down_proj.weight)
    x = _norm(x, tower.post_layernorm)
    # A 2x2 convolution with stride 2 over blocks that already stand together is one linear layer.
    blocks = x.view(images, length // MERGE**2, MERGE**2, -1).transpose(2, 3).flatten(2)
    x = _linear(blocks, tower.downsample.weight.flatten(1)).float() + tower.downsample.bias
    merged: torch.Tensor = tower.merger(x)
    return merged


def read(model: Glm4vForConditionalGeneration, packed: Packed, features: torch.Tensor | None) -> torch.Tensor:
    """Last hidden states [rows * tokens, hidden]; `features` stand where the rows show their pictures."""
    language = model.model.language_model
    x = language.embed_tokens(packed.ids)
    if features is not None:
        shown = features.flatten(0, 1)[packed.image_from]
        x = x.flatten(0, 1).index_copy(0, packed.image_at, shown).view_as(x)
    cos, sin = (table.to(HALF)[:, :, None] for table in language.rotary_emb(x, position_ids=packed.positions))
    hidden_from = torch.zeros(packed.mask.shape, dtype=HALF).masked_fill(
        ~packed.mask, -1e4
    )  # [rows, 1, tokens, tokens]
    for layer in language.layers:
        attended = _attend(_norm(x, layer.input_layernorm), layer.self_attn, cos, sin, hidden_from)
        x = x + _norm(attended.float(), layer.post_self_attn_layernorm)
        gate, up = _linear(_norm(x, layer.post_attention_layernorm), layer.mlp.gate_up_proj.weight).chunk(2, dim=-1)
        x = x + _norm(_linear(functional.silu(gate) * up, layer.mlp.down_proj.weight).float(), layer.post_mlp_layernorm)
    flat: torch.Tensor = language.norm(x.flatten(0, 1)[packed.predicted_at])
    return flat


def _attend(
    x: torch.Tensor, attention: Any, cos: torch.Tensor, sin: torch.Tensor, hidden_from: torch.Tensor
) -> torch.Tensor:
    """Grouped-query attention; each key and value head serves its queries where it lies."""
    rows, length, _ = x.shape
    size, groups = attention.head_dim, attention.num_key_value_heads
    query, key, value = (
        (_linear(x, part.weight) + part.bias.to(HALF)).view(rows, length, -1, size)
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = _interleaved_turned(query, cos, sin), _interleaved_turned(key, cos, sin)
    query = query.view(rows, length, groups, -1, size).permute(0, 2, 3, 1, 4).reshape(rows, groups, -1, size)
    key, value = key.transpose(1, 2), value.transpose(1, 2)
    scores = (query @ key.transpose(2, 3) * size**-0.5).view(rows, -1, length, length) + hidden_from
    mixed = scores.softmax(-1).view(rows, groups, -1, length) @ value  # [rows, groups, queries * tokens, size]
    mixed = mixed.view(rows, groups, -1, length, size).permute(0, 3, 1, 2, 4).reshape(rows, length, -1)
    return _linear(mixed, attention.o_proj.weight)


def _linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.linear(x.to(HALF), weight.to(HALF))


def _norm(x: torch.Tensor, norm: Any) -> torch.Tensor:
    normed: torch.Tensor = functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)
    return normed


def _half_turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    one, other = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-other, one], dim=-1) * sin


def _interleaved_turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """The first dimensions of each head are turned in neighbouring pairs."""
    turned = x[..., : cos.shape[-1]]
    across = torch.stack((-turned[..., 1::2], turned[..., 0::2]), dim=-1).flatten(-2)
    return torch.cat([turned * cos + across * sin, x[..., cos.shape[-1] :]], dim=-1)
