"""Matrix products on a CPU through oneDNN, with the weights laid out for it once.

torch hands float32 products to MKL, which uses half of the vector width of an AMD processor: on
one core 112 GFLOP/s where oneDNN reaches 260 (192 rows, 256 to 1024). A row's bits do not depend
on how many rows share the call, so a picture is the same alone and in a batch.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor, nn
from torch.nn import functional

logger = logging.getLogger(__name__)


class PackedLinear(nn.Module):
    """A linear layer for drawing only: no gradients, and later changes of the weights are not seen.

    Args:
        weight: (outputs, inputs).
        bias: (outputs,) or None.
        gelu: whether the output passes GELU in its tanh form.

    Where oneDNN cannot serve (no CPU, another dtype, a build without it) it is torch's own product.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> None:
        super().__init__()
        self._bias = None if bias is None else bias.detach()
        self._gelu = gelu
        self.is_packed = can_pack(weight)
        self._weight = weight.detach()
        if self.is_packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)

    @classmethod
    def of(cls, linear: nn.Linear) -> PackedLinear:
        """The same layer, packed."""
        return cls(linear.weight, linear.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        if self.is_packed:
            # What torch.compile emits for a frozen linear layer; there is no public name for it.
            name, form = ("gelu", "tanh") if self._gelu else ("none", "")
            packed: Tensor = torch.ops.mkldnn._linear_pointwise.default(
                rows, self._weight, self._bias, name, [], form
            )
            return packed
        product = functional.linear(rows, self._weight, self._bias)
        return functional.gelu(product, approximate="tanh") if self._gelu else product


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN can serve this matrix; says once why it cannot on a CPU."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and _has_onednn()


def pack_linears(module: nn.Module) -> int:
    """Replace every linear layer inside a module that is only drawn with from now on.

    Returns:
        How many were replaced.
    """
    found = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and can_pack(child.weight)
    ]
    for parent, name, child in found:
        setattr(parent, name, PackedLinear.of(child))
    return len(found)


@functools.cache
def _has_onednn() -> bool:
    """Whether this build of torch has the product and it is right."""
    try:
        rows, weight = torch.randn(3, 8), torch.randn(5, 8)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        product = torch.ops.mkldnn._linear_pointwise.default(rows, packed, None, "none", [], "")
        if torch.allclose(product, rows @ weight.T, atol=1e-5):
            return True
        why = "its product is wrong"
    # An operator that is not built raises RuntimeError, one that is not there AttributeError.
    except (AttributeError, RuntimeError) as error:
        why = f"{type(error).__name__}"
    logger.warning("Matrices are not packed for oneDNN (%s); torch's own product serves.", why)
    return False
