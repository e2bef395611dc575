"""The model's forward pass for training: a batch of pictures of one size, several questions behind each picture."""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import Glm4vForConditionalGeneration
from transformers.models.glm4v.modeling_glm4v import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids

from glmserve.model.image_processor import Grid

MERGE = 2


def see(model: Glm4vForConditionalGeneration, patches: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Image features [pictures, tokens, hidden] of normalised patches [pictures, patches, 588], all of one grid."""
    tower = model.model.visual
    images, length, _ = patches.shape
    shape = torch.tensor([[1, grid.rows, grid.columns]])
    places = get_vision_position_ids(shape, MERGE)  # [patches, 2]
    # Both frames of a still are equal, so their weights add up.
    weight = tower.patch_embed.proj.weight.sum(dim=2).flatten(1)
    x = functional.linear(patches, weight, tower.patch_embed.proj.bias)
    x = tower.post_conv_layernorm(x)
    cos, sin = tower.rotary_pos_emb(x, places)
    nothing = torch.zeros(length, x.shape[-1])
    x = x + tower.embeddings(nothing, [length], shape, places[:, 0], places[:, 1])
    for block in tower.blocks:
        attention = block.attn
        qkv = attention.qkv(block.norm1(x)).view(images, length, 3, attention.num_heads, attention.head_dim)
        query, key = apply_rotary_pos_emb_vision(qkv[:, :, 0], qkv[:, :, 1], cos, sin)
        mixed = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), qkv[:, :, 2].transpose(1, 2)
        )
        x = x + attention.proj(mixed.transpose(1, 2).reshape(images, length, -1))
        x = x + block.mlp(block.norm2(x))
    x = tower.post_layernorm(x)
    # A 2x2 convolution with stride 2 over blocks that already stand together is one linear layer.
    blocks = x.view(images, length // MERGE**2, MERGE**2, -1).transpose(2, 3).flatten(2)
    x = functional.linear(blocks, tower.downsample.weight.flatten(1), tower.downsample.bias)
    merged: torch.Tensor = tower.merger(x)
    return merged


def read(
    model: Glm4vForConditionalGeneration,
    ids: torch.Tensor,
    positions: torch.Tensor,
    mask: torch.Tensor,
    features: torch.Tensor | None,
    features_start: int,
) -> torch.Tensor:
    """Last hidden states [rows, tokens, hidden]; `features` replace the picture tokens from `features_start` on."""
    language = model.model.language_model
    x = language.embed_tokens(ids)
    if features is not None:
        end = features_start + features.shape[1]
        x = torch.cat([x[:, :features_start], features, x[:, end:]], dim=1)
    rotation = language.rotary_emb(x, position_ids=positions)
    for layer in language.layers:
        x = layer(x, attention_mask=mask, position_embeddings=rotation)
    normed: torch.Tensor = language.norm(x)
    return normed
