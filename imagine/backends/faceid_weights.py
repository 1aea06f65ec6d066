"""Opens what a FaceID backend is made of: base model, adapter, LoRAs, and says what is missing.

Only safetensors are opened. Nothing is ever fetched: a hub id means the copy in the local cache.
Leaves what is done with the weights to `unet_faceid`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from imagine.errors import CorruptWeights, MissingWeights

PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
# Suffixes of the first matrix of a LoRA pair, and of the second, in the layouts in use.
LORA_PAIRS = (
    (".lora_A.weight", ".lora_B.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


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


def find_base(source: Path, parts: Sequence[str], what: str, command: str) -> Path:
    """The folder of the base model in the diffusers layout; a hub id is looked up in the cache.

    Args:
        source: a folder, or "owner/name".
        parts: the folders it must have.
        what: the model in words, for messages.
        command: gets it.

    Raises:
        MissingWeights: it is not on this machine, or a part of it is missing.
    """
    folder = source if source.is_dir() else cached_snapshot(source)
    if folder is None:
        raise MissingWeights(
            f"{what} is not on this machine: {str(source)!r} is neither a folder nor a hub id in "
            f"the cache. Get it with: {command}"
        )
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise MissingWeights(
            f"{what} in {folder} is not complete: {', '.join(f'{part}/' for part in missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing. Get the whole of it with: {command}"
        )
    return folder


def cached_snapshot(source: Path) -> Path | None:
    """The cached folder of a hub id, or None; never asks the network."""
    if not HUB_ID.fullmatch(source.as_posix()):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source.as_posix(), local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def weights_in(folder: Path, what: str, command: str) -> list[Path]:
    """The safetensors of a folder, sorted.

    Raises:
        MissingWeights: no weights there.
        CorruptWeights: pickles only.
    """
    if found := sorted(folder.glob("*.safetensors")):
        return found
    for path in sorted(folder.glob("*")):
        refuse_pickle(path)
    raise MissingWeights(f"There are no weights of {what} in {folder}. Get them with: {command}")


def refuse_pickle(path: Path) -> None:
    """Opening a pickle runs whatever its author wrote into it, so we convert it first.

    Raises:
        CorruptWeights: the name ends like a pickle's; the message has the command.
    """
    if path.suffix.lower() in PICKLES:
        target = path.with_suffix(".safetensors")
        raise CorruptWeights(
            f"{path.name} is a pickle, which can run code when it is opened, so it is not. Convert "
            f"it once, safely: python -m imagine.backends.convert_adapter '{path}' '{target}'"
        )


def open_part(
    model_class: type[Any], folder: Path, dtype: torch.dtype, device: str, command: str
) -> Any:
    """One model in its own folder, ready to use; `command` gets it, for messages.

    Raises:
        CorruptWeights: unreadable, or some of its weights are not in the files.
        MissingWeights: no weights there.
    """
    files = weights_in(folder, folder.name, command)
    is_diffusers = model_class.__module__.startswith("diffusers")
    loading: dict[str, Any] = {("torch_dtype" if is_diffusers else "dtype"): dtype}
    if all(".fp16." in path.name for path in files):
        loading["variant"] = "fp16"
    if not is_diffusers:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, report = model_class.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **loading
        )
    # Both libraries, safetensors and json each raise their own kinds.
    except Exception as error:
        raise CorruptWeights(
            f"{folder} cannot be loaded ({_in_short(error)}). Get it again with: {command}"
        ) from error
    # Both libraries fill gaps with random numbers and only log it.
    if absent := sorted([*report["missing_keys"], *map(str, report["mismatched_keys"])]):
        raise CorruptWeights(
            f"{folder} lacks {len(absent)} weights, for example {absent[0]}. "
            f"Get it again with: {command}"
        )
    return model.to(device).eval().requires_grad_(False)


def open_tokenizer(folder: Path) -> Any:
    """The CLIP tokenizer of a base model.

    Raises:
        CorruptWeights: its files cannot be read.
    """
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    # transformers and tokenizers each raise their own kinds.
    except Exception as error:
        raise CorruptWeights(
            f"{folder} cannot be loaded ({_in_short(error)}). Get it again."
        ) from error


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


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the notes of a file.

    Raises:
        CorruptWeights: it cannot be read.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptWeights(
            f"{path} cannot be read ({_in_short(error)}). Get it again."
        ) from error


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
            f"{path} is not a LoRA of a kind known here ({_in_short(error)})."
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


def files_revision(paths: Iterable[Path]) -> str:
    """First twelve hex digits of a hash over the hashes of the files, in the order given.

    A file in the hub's cache is a link to one named by its own SHA-256, so gigabytes need not be
    read again; other files are read.
    """
    digest = hashlib.sha256()
    for path in paths:
        content = path.resolve().name
        if not re.fullmatch(r"[0-9a-f]{64}", content):
            with path.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{path.parent.name}/{path.name}={content}\n".encode())
    return digest.hexdigest()[:12]


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"
