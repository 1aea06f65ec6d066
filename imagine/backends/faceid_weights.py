"""What an IP-Adapter FaceID checkpoint holds, under its published key names.

Leaves what is done with the weights to `unet_faceid`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from imagine.backends.lora import LoraPair
from imagine.backends.weight_files import read_safetensors, refuse_pickle
from imagine.errors import CorruptWeights


@dataclass(frozen=True)
class AdapterWeights:
    """An IP-Adapter FaceID checkpoint as published, still under its own key names.

    Attributes:
        path: where it came from.
        image_proj: turns a face embedding into identity tokens.
        ip_adapter: numbered by attention layer: key and value matrices of the identity tokens, and
            the LoRA every layer was trained with.
        has_shortcut: whether the tokens are added to those of the embedding alone, which is what
            tells FaceID-Plus v2 from v1; the keys of both are the same.
    """

    path: Path
    image_proj: Mapping[str, Tensor] = field(repr=False)
    ip_adapter: Mapping[str, Tensor] = field(repr=False)
    has_shortcut: bool

    @property
    def wants_picture(self) -> bool:
        """Whether it looks at the face itself, through CLIP, beside its embedding."""
        return "perceiver_resampler.proj_in.weight" in self.image_proj


def read_adapter(path: Path) -> AdapterWeights:
    """Read an IP-Adapter FaceID checkpoint converted to safetensors.

    Raises:
        CorruptWeights: a pickle, unreadable, or not a FaceID adapter.
    """
    refuse_pickle(path)
    groups: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    tensors, metadata = read_safetensors(path)
    for key, tensor in tensors.items():
        group, _, name = key.partition(".")
        if group in groups:
            groups[group][name] = tensor
    projection = groups["image_proj"]
    if not groups["ip_adapter"] or not {"proj.0.weight", "norm.weight"} <= projection.keys():
        raise CorruptWeights(
            f"{path} is not an IP-Adapter FaceID: it has "
            f"{', '.join(sorted(tensors)[:3]) or 'no weights'}, and image_proj.proj.0.weight, "
            "image_proj.norm.weight and ip_adapter.1.to_k_ip.weight were expected. Plain "
            "IP-Adapters do not know faces; choose a file with faceid in its name."
        )
    named = f"{path.name} {metadata.get('source', '')}".lower()
    return AdapterWeights(path, projection, groups["ip_adapter"], "plusv2" in named)


def adapter_lora(adapter: AdapterWeights, layers: Sequence[str]) -> list[LoraPair]:
    """The LoRA inside a FaceID checkpoint, one pair for each projection of each attention layer.

    Args:
        adapter: the checkpoint.
        layers: the attention layers in the UNet's own order, which the numbers in the keys count.

    Raises:
        CorruptWeights: some layers have one and others do not, or there are more than layers.
    """
    keys = [key for key in adapter.ip_adapter if "_lora." in key]
    if not keys:
        return []
    pairs = []
    for number, layer in enumerate(layers):
        for part in ("to_q", "to_k", "to_v", "to_out"):
            down = adapter.ip_adapter.get(f"{number}.{part}_lora.down.weight")
            up = adapter.ip_adapter.get(f"{number}.{part}_lora.up.weight")
            if down is None or up is None:
                raise _other_base(adapter, f"{number}.{part}_lora is missing")
            pairs.append(LoraPair(f"{layer}.{part}", down, up))
    if len(keys) != 2 * len(pairs):
        raise _other_base(adapter, f"its LoRA has {len(keys)} matrices, not {2 * len(pairs)}")
    return pairs


def adapter_projections(
    adapter: AdapterWeights, layers: Sequence[str]
) -> tuple[list[Tensor], list[Tensor]]:
    """Key and value matrices of the identity tokens, one of each for every cross-attention layer.

    Args:
        adapter: the checkpoint.
        layers: all attention layers in the UNet's own order.

    Raises:
        CorruptWeights: a layer has none, or there are more of them than layers.
    """
    numbers = [number for number, layer in enumerate(layers) if layer.endswith("attn2")]
    matrices: list[list[Tensor]] = [[], []]
    for part, found in zip(("to_k_ip", "to_v_ip"), matrices, strict=True):
        for number in numbers:
            matrix = adapter.ip_adapter.get(f"{number}.{part}.weight")
            if matrix is None:
                raise _other_base(adapter, f"{number}.{part}.weight is missing")
            found.append(matrix)
    count = sum(1 for key in adapter.ip_adapter if "_ip." in key)
    if count != 2 * len(numbers):
        raise _other_base(adapter, f"it has {count} key and value matrices, not {2 * len(numbers)}")
    return matrices[0], matrices[1]


def _other_base(adapter: AdapterWeights, how: str) -> CorruptWeights:
    return CorruptWeights(
        f"{adapter.path} was made for another base model: {how}. "
        "Choose the adapter with the name of this base (sd15 or sdxl) in its own."
    )
