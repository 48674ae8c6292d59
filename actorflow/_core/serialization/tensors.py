"""Torch tensors as values: their bytes travel out of band, and what arrives may be written to, privately (SEMANTICS 14).

Torch has no read-only tensors, so a view of shared memory would let a stray `add_` change what everybody reads. A large tensor is a
private mapping of the same pages instead: it costs nothing to receive, a page is copied when it is first written to, and nobody else
sees that. A small one is copied at once.

Torch's own pickle of a CPU tensor has the whole storage in the stream, also for a view of a few elements. Here only what the tensor
shows travels, laid out as it was (transposed and channels-last ones included). What is not plain goes torch's way: other devices and
layouts, subclasses, tensors with Python attributes.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

PRIVATE_BYTES_MIN = 1024 * 1024
"""From here on a mapping is cheaper than a copy, also when all of it is written to."""


def reduce_tensor(tensor: Any) -> Any:
    """For `dispatch_table`: how to pickle a `torch.Tensor`."""
    torch: Any = sys.modules["torch"]
    if not _is_plain(torch, tensor):
        return tensor.__reduce_ex__(5)
    data = tensor.detach()
    order = sorted(range(data.dim()), key=data.stride, reverse=True)
    if data.permute(order).is_contiguous():
        data = data.permute(order)
    else:
        order, data = list(range(data.dim())), data.contiguous()
    # As bytes, and not as NumPy's types: those have no bfloat16.
    content = pickle.PickleBuffer(data.reshape(-1).view(torch.uint8).numpy()) if data.numel() else b""
    return rebuild_tensor, (content, tensor.dtype, tuple(data.shape), tuple(order), tensor.requires_grad)


def _is_plain(torch: Any, tensor: Any) -> bool:
    return bool(
        tensor.device.type == "cpu" and tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_conj()
        and not tensor.is_neg() and not tensor._backward_hooks and not vars(tensor)
        and (tensor.is_leaf or not tensor.requires_grad)
    )  # fmt: skip


def rebuild_tensor(content: Any, dtype: Any, shape: tuple[int, ...], order: tuple[int, ...], requires_grad: bool) -> Any:
    """The inverse: what stands in pickles."""
    import torch

    if len(content):
        buffer, offset = _writable(content)
        tensor = torch.frombuffer(buffer, dtype=dtype, offset=offset, count=len(content) // dtype.itemsize).view(shape)
    else:
        tensor = torch.empty(shape, dtype=dtype)
    if order != tuple(range(len(order))):
        places = [0] * len(order)
        for place, dim in enumerate(order):
            places[dim] = place
        tensor = tensor.permute(places)
    return tensor.requires_grad_() if requires_grad else tensor


def _writable(content: Any) -> tuple[Any, int]:
    """Bytes of our own that may be written to, and where in them the content begins."""
    arena = getattr(getattr(content, "obj", None), "arena", None)
    if arena is not None and len(content) >= PRIVATE_BYTES_MIN:
        private: tuple[Any, int] | None = arena.private(content)
        if private is not None:
            return private
    return bytearray(content), 0
