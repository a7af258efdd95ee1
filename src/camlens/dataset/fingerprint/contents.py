"""Hash bytes, tensors and arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor


def sha(*parts: bytes | str) -> bytes:
    """Return the SHA-256 of parts, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.digest()


def tensor_content(value: Tensor) -> Iterator[bytes | str]:
    """Yield a tensor's type, its shape and a hash of its values."""
    yield str(value.dtype)
    yield str(tuple(value.shape))
    if value.device.type == "meta":
        return
    dense = value.detach().cpu()
    if dense.is_quantized:
        yield repr((dense.qscheme(), dense.int_repr().dtype))
        dense = dense.dequantize()
    dense = dense if dense.layout == torch.strided else dense.to_dense()
    flat = dense.resolve_conj().resolve_neg().contiguous().reshape(-1)
    if flat.numel():
        yield array_content(flat.view(torch.uint8).numpy())


def array_content(values: np.ndarray[Any, Any] | np.generic) -> bytes:
    """Hash an array's contents, ten times as fast as SHA-256, since weights may take gigabytes."""
    whole = np.ascontiguousarray(values)
    try:
        return xxhash.xxh3_128_digest(whole.data)
    except ValueError:  # dates have no buffer
        return xxhash.xxh3_128_digest(whole.tobytes())
