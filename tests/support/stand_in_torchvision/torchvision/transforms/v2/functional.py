"""Resizing and normalising tensors [..., channels, rows, columns]."""

import torch

from torchvision.transforms import InterpolationMode as InterpolationMode


def resize(image, size, interpolation, antialias):
    shape = image.shape
    flat = image.reshape(-1, *shape[-3:])
    made = torch.nn.functional.interpolate(
        flat, size, mode=interpolation.value, align_corners=False, antialias=antialias
    )
    return made.reshape(*shape[:-2], *size)


def normalize(image, mean, std, inplace=False):
    mean, std = (torch.as_tensor(values, dtype=image.dtype)[:, None, None] for values in (mean, std))
    return (image - mean) / std


def grayscale_to_rgb(image):
    return image
