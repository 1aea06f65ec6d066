"""LoRAs: read from a file in the layouts in use, and fused into the weights of a model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imagine.backends.weight_files import PICKLES, in_short, read_safetensors, refuse_pickle
from imagine.errors import CorruptWeights

# Suffixes of the first matrix of a LoRA pair, and of the second, in the layouts in use.
LORA_PAIRS = (
    (".lora_A.weight", ".lora_B.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
)


@dataclass(frozen=True)
class LoraPair:
    """What one layer learned: weight += scale * up @ down.

    Attributes:
        layer: name of the layer, as its file spells it.
        down: (rank, inputs, ...).
        up: (outputs, rank, ...).
        scale: strength.
    """

    layer: str
    down: Tensor = field(repr=False)
    up: Tensor = field(repr=False)
    scale: float = 1.0


def find_loras(folder: Path) -> list[Path]:
    """The weight files of a folder in order of name, pickles among them; none without a folder."""
    return sorted(
        path for path in folder.glob("*") if path.suffix.lower() in (".safetensors", *PICKLES)
    )


def read_lora(path: Path, unet_config: Mapping[str, Any]) -> dict[str, list[LoraPair]]:
    """A style or few-step LoRA, as diffusers, peft or kohya write it: model name -> pairs.

    Raises:
        CorruptWeights: a pickle, unreadable, of a kind that cannot be fused here.
    """
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin

    refuse_pickle(path)
    tensors, metadata = read_safetensors(path)
    if odd := sorted(key for key in tensors if re.search("dora_scale|magnitude|hada_|lokr_", key)):
        raise CorruptWeights(
            f"{path} is not a plain LoRA ({odd[0]}), and no other kind can be fused here. "
            "Choose a LoRA, or have its author export one."
        )
    try:
        notes = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        weights, alphas = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
            tensors, unet_config=unet_config
        )
    except (ValueError, KeyError) as error:
        raise CorruptWeights(
            f"{path} is not a LoRA of a kind known here ({in_short(error)})."
        ) from error
    settings = {key.rpartition(".")[2]: value for key, value in notes.items()}
    if beyond := [key for key in ("use_dora", "use_rslora", "alpha_pattern") if settings.get(key)]:
        raise CorruptWeights(
            f"{path} is not a plain LoRA (it has {beyond[0]}), and no other kind can be fused "
            "here. Choose a LoRA, or have its author export one."
        )
    grouped: dict[str, list[LoraPair]] = {}
    used: set[str] = set()
    for model, pair, keys in _lora_pairs(weights, alphas or {}, notes):
        grouped.setdefault(model, []).append(pair)
        used.update(keys)
    if not used or (left := sorted(weights.keys() - used)):
        example = left[0] if used else "no LoRA matrices"
        raise CorruptWeights(f"{path} is not a LoRA of a kind known here: it has {example}.")
    return grouped


def _lora_pairs(
    weights: Mapping[str, Tensor], alphas: Mapping[str, float], notes: Mapping[str, Any]
) -> Iterable[tuple[str, LoraPair, tuple[str, str]]]:
    # diffusers names a strength after the layer, or after the whole key of its first matrix.
    strengths = {key.removesuffix(".alpha"): value for key, value in alphas.items()}
    for key, down in weights.items():
        for first, second in LORA_PAIRS:
            if not key.endswith(first):
                continue
            name = key.removesuffix(first)
            partner = name + second
            if partner not in weights:
                break
            model, _, layer = name.partition(".")
            rank = down.shape[0]
            usual = notes.get(f"{model}.lora_alpha", rank)
            alpha = strengths.get(key, strengths.get(name, usual))
            pair = LoraPair(layer, down, weights[partner], float(alpha) / rank)
            yield model, pair, (key, partner)
            break


def fuse_lora(model: nn.Module, pairs: Iterable[LoraPair], path: Path) -> None:
    """Add LoRA to the weights themselves; afterwards it costs nothing.

    Sums are made in float32 and rounded once, whatever the weights' own precision.

    Raises:
        CorruptWeights: a layer the model does not have, or of another shape.
    """
    weights = {
        _flat(name.removesuffix(".weight")): weight
        for name, weight in model.named_parameters()
        if name.endswith(".weight")
    }
    for pair in pairs:
        known = [weights[name] for name in _spellings(pair.layer) if name in weights]
        shape = (pair.up.shape[0], pair.down[0].numel())
        if not known or shape != (known[0].shape[0], known[0][0].numel()):
            raise CorruptWeights(
                f"{path} was made for another model: {pair.layer} "
                f"{'has another shape in' if known else 'is no layer of'} this "
                f"{type(model).__name__}. Choose a file made for this base."
            )
        weight = known[0]
        down, up = (part.to(weight.device).float().flatten(1) for part in (pair.down, pair.up))
        change = (up @ down).mul_(pair.scale).reshape(weight.shape)
        with torch.no_grad():
            weight.copy_(weight.float().add_(change))


def _flat(name: str) -> str:
    return name.replace(".processor", "").replace(".", "_")


def _spellings(layer: str) -> list[str]:
    """How a layer may be called inside the model."""
    flat = _flat(layer)
    inside_text = flat.removeprefix("text_model_")
    projections = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
    renamed = [
        inside_text.removesuffix(theirs) + ours
        for theirs, ours in projections.items()
        if inside_text.endswith(f"self_attn_{theirs}")
    ]
    return [flat, f"{flat}_0", inside_text, *renamed]
