"""How many bytes of tensors live at once while something runs, exactly, and on no device at all."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """Counts the storages that operations make, until each is freed.

    Tensors that were there before (weights, inputs) are not counted, nor what a kernel takes for
    itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size


def peak_bytes(call: Callable[[], object]) -> int:
    """Peak of live tensors while `call` runs, bytes."""
    with torch.inference_mode(), LiveTensors() as live:
        call()
    return live.peak


def peak_bytes_of_architecture(
    build: Callable[[], Any], run: Callable[[Any], object], dtype: torch.dtype = torch.bfloat16
) -> int:
    """The same for a model of true size, whose tensors have shapes and no content."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            model = build().eval()
            with LiveTensors() as live:
                run(model)
        finally:
            torch.set_default_dtype(before)
    return live.peak
