"""Weights of ditr's own, with their digest, which shows damage wherever the file is taken later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import xxhash
from safetensors.torch import save
from torch import Tensor, nn

from ditr.files import replacing

DIGEST = "ditr_xxh3_128"
"""Name of the digest in a file's metadata."""


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's state dict as safetensors, whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = save(state, metadata={DIGEST: digest_of(state)})
    with replacing(path, needs=len(content)) as beside:
        beside.write_bytes(content)  # save_file names no cause where it fails


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """xxh3_128, in hex, of names, types, shapes and values, in the order of the names."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
