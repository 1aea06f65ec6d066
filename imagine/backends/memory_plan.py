"""What fits on a device, decided before anything is loaded, and how to load it so.

Weights are counted, activations follow a model with one number per family: the peak of live
tensors grows with the picture's latent pixels or tokens and nothing else. Those numbers come from
running the true architectures on tensors without content (tests/backends/test_memory_plan.py);
what a library takes for itself beside them is a reserve that is assumed, not measured.
A plan is made for the square. No other shape has more pixels (`base.sizes_by_blocks`), so it holds
for all of them.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from imagine.errors import InvalidInput, UnknownName

logger = logging.getLogger(__name__)

GB = 1_000_000_000
# CUDA's context, cuBLAS and cuDNN workspaces and what the allocator keeps. Assumed.
RESERVE_BYTES = 800_000_000
# Workspaces of single kernels and holes between blocks, as a share of the activations. Assumed.
SLACK = 1.15
MAX_ROWS = 64
MAX_SIZE = 2048
MAX_PHOTOS = 5
TILE_SIZE = 512  # pixels a side, when the picture autoencoder works in tiles
LARGEST_GRAPHED = 512  # pixels a side: beyond, launches are hidden behind the work
BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1}


class Offload(StrEnum):
    """Where weights wait while they are not used."""

    NONE = "none"  # all on the device
    MODEL = "model"  # one model at a time on the device, the others in the machine's memory
    GROUP = "group"  # one layer at a time on the device: slow, fits almost anywhere


class Stage(StrEnum):
    """When a part works; parts of different stages need not be on the device together."""

    PREPARE = "prepare"
    STEP = "step"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Part:
    """Weights that are opened together.

    Attributes:
        name: of the folder in the diffusers layout.
        parameters: how many numbers.
        stage: when they are needed.
        largest_layer: parameters of its largest single layer.
        always_float32: whether it is kept in float32 when the rest is float16.
    """

    name: str
    parameters: int
    stage: Stage
    largest_layer: int
    always_float32: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """A backend's sizes.

    Attributes:
        name: the registry name.
        parts: all its weights.
        dtypes: of weights and arithmetic, the preferred first.
        sizes: smallest, usual and largest picture side, pixels.
        multiple: picture sides are multiples of this, pixels.
        row_bytes: (size) -> peak of live tensors of one forward row at two bytes a value.
        picture_bytes: (size) -> what one prepared picture keeps between steps, likewise.
        decode_bytes_per_pixel: peak of live tensors while one picture is decoded, likewise.
        source: where the numbers come from.
    """

    name: str
    parts: tuple[Part, ...]
    dtypes: tuple[str, ...]
    sizes: tuple[int, int, int]
    multiple: int
    row_bytes: Callable[[int], int] = field(repr=False)
    picture_bytes: Callable[[int], int] = field(repr=False)
    decode_bytes_per_pixel: int
    source: str

    @property
    def parameters(self) -> int:
        """How many numbers all parts have."""
        return sum(part.parameters for part in self.parts)


def _unet_row(bytes_per_latent_pixel: int) -> Callable[[int], int]:
    return lambda size: bytes_per_latent_pixel * (size // 8) ** 2


def _unet_picture(prompt_bytes: int, photo_bytes: int) -> Callable[[int], int]:
    """Keys and values of two prompts (asked, nothing asked) and of the photos for both, latents."""
    kept = 2 * (prompt_bytes + MAX_PHOTOS * photo_bytes)
    return lambda size: kept + 2 * 4 * 4 * (size // 8) ** 2


def _klein_tokens(size: int) -> int:
    """Picture, prompt and the references of as many photos as we take, 256 tokens each."""
    return (size // 16) ** 2 + 512 + MAX_PHOTOS * 256


_MEASURED = "live tensors of the true architecture, tests/backends/test_memory_plan.py"
_CLIP_L = Part("text_encoder", 123_060_480, Stage.PREPARE, 37_945_344)
_VAE_LAYER = 2_359_808

FAMILIES: dict[str, Family] = {
    "embedded": Family(
        name="embedded",
        # On a CPU the denoiser's matrices lie beside it once more, packed: 40 MB of the reserve.
        parts=(
            Part("denoiser", 11_046_912, Stage.STEP, 444_096),
            Part("identity_adapter", 1_883_936, Stage.PREPARE, 147_456),
            Part("text_encoder", 22_565_376, Stage.PREPARE, 11_720_448),
            Part("upsampler", 3_488_336, Stage.DECODE, 331_968),
            Part("chooser", 3_084_295, Stage.STEP, 768_160),
            Part("face_locator", 348_612, Stage.STEP, 83_040),
            Part("face_refiner", 5_547_260, Stage.DECODE, 331_968),
        ),
        dtypes=("float32",),
        # Denoised at half the side, which the upsampler doubles.
        sizes=(256, 256, 256),
        multiple=256,
        row_bytes=lambda size: 340_000 * (size // 256) ** 2,
        # As many candidates as are drawn by default.
        picture_bytes=lambda size: 6_513_000 * (size // 256) ** 2,
        decode_bytes_per_pixel=94,
        source=_MEASURED,
    ),
    "sd15_faceid": Family(
        name="sd15_faceid",
        parts=(
            Part("unet", 859_520_964, Stage.STEP, 29_492_480),
            Part("ip_adapter", 22_844_928, Stage.PREPARE, 3_148_800),
            _CLIP_L,
            Part("vae", 83_653_863, Stage.DECODE, _VAE_LAYER),
        ),
        dtypes=("float16", "bfloat16"),
        sizes=(256, 512, MAX_SIZE),
        multiple=8,
        row_bytes=_unet_row(16_650),
        # 16 layers, widths 12,480 together: 77 prompt tokens, 4 identity tokens a photo.
        picture_bytes=_unet_picture(77 * 2 * 12_480 * 2, 4 * 2 * 12_480 * 2),
        decode_bytes_per_pixel=1537,
        source=_MEASURED,
    ),
    "sdxl_faceid": Family(
        name="sdxl_faceid",
        parts=(
            Part("unet", 2_567_463_684, Stage.STEP, 29_492_480),
            Part("ip_adapter", 349_713_408, Stage.PREPARE, 8_396_800),
            _CLIP_L,
            Part("text_encoder_2", 694_659_840, Stage.PREPARE, 63_242_240),
            Part("vae", 83_653_863, Stage.DECODE, _VAE_LAYER, always_float32=True),
        ),
        dtypes=("float16", "bfloat16"),
        sizes=(512, 1024, MAX_SIZE),
        multiple=8,
        row_bytes=_unet_row(10_090),
        # 70 layers, widths 83,200 together.
        picture_bytes=_unet_picture(77 * 2 * 83_200 * 2, 4 * 2 * 83_200 * 2),
        decode_bytes_per_pixel=1537,
        source=_MEASURED,
    ),
    "flux2_klein": Family(
        name="flux2_klein",
        parts=(
            Part("transformer", 3_875_544_576, Stage.STEP, 84_934_656),
            # Of Qwen3-4B we load 28 of 36 layers and no output head.
            Part("text_encoder", 3_215_021_568, Stage.PREPARE, 388_956_160),
            Part("vae", 84_046_115, Stage.DECODE, _VAE_LAYER),
        ),
        dtypes=("bfloat16", "float16"),
        sizes=(256, 1024, MAX_SIZE),
        multiple=16,
        row_bytes=lambda size: 133_200 * _klein_tokens(size),
        # Prompt embeddings, references and twice the latents in float32.
        picture_bytes=lambda size: 512 * 7680 * 2 + (_klein_tokens(size) * 2 - 512) * 128 * 4,
        decode_bytes_per_pixel=1538,
        source=_MEASURED,
    ),
}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a backend is loaded on a device of a given size.

    Attributes:
        backend: the registry name.
        size: side of the square pictures, pixels; no other shape has more.
        device_bytes: memory of the device.
        dtype: of weights and arithmetic.
        storage: dtype in which the step's weights wait; "float8" halves them and rounds them.
        offload: where weights wait.
        vae_tiling: whether pictures are decoded in tiles.
        weight_bytes: weights on the device at the fullest moment of a step.
        working_bytes: room beside those weights for activations and prepared pictures.
        decode_bytes: activations while a picture is decoded.
        bytes_per_forward_row: activations of one row of the forward pass.
        bytes_per_picture: what one prepared picture keeps between steps.
        host_bytes: weights that wait in the machine's own memory.
    """

    backend: str
    size: int
    device_bytes: int
    dtype: str
    storage: str
    offload: Offload
    vae_tiling: bool
    weight_bytes: int
    working_bytes: int
    decode_bytes: int
    bytes_per_forward_row: int
    bytes_per_picture: int
    host_bytes: int

    def in_words(self) -> str:
        """The plan as a person reads it."""
        rows = rows_that_fit(self)
        offload = {
            Offload.NONE: "all weights stay on the device",
            Offload.MODEL: f"one model at a time on the device, {_gb(self.host_bytes)} of weights "
            "wait in the machine's memory; starting a picture is slower",
            Offload.GROUP: f"one layer at a time on the device, {_gb(self.host_bytes)} of weights "
            "wait in the machine's memory; every step is slower",
        }[self.offload]
        stored = " (the step's weights wait as float8, which rounds them)" if self.rounds else ""
        tiling = f"in tiles of {TILE_SIZE} pixels" if self.vae_tiling else "whole"
        return "\n".join(
            (
                f"{self.backend} at {self.size}x{self.size} pixels on {_gb(self.device_bytes)}:",
                f"  precision: {self.dtype}{stored}",
                f"  offload: {self.offload}, {offload}",
                f"  weights on the device: {_gb(self.weight_bytes)}; reserve for the libraries "
                f"{_gb(RESERVE_BYTES)} (assumed)",
                f"  decoding: {tiling}, {_gb(self.decode_bytes)}",
                f"  batch: {rows} row{'s' if rows > 1 else ''} of the forward pass at once, "
                f"{_gb(self.bytes_per_forward_row)} each; guidance takes two rows a picture",
            )
        )

    @property
    def rounds(self) -> bool:
        """Whether weights lose precision by the way they are kept."""
        return self.storage != self.dtype


def make_plan(
    backend: str,
    device_bytes: int,
    *,
    size: int | None = None,
    dtypes: Sequence[str] = (),
    allow_float8: bool = False,
) -> MemoryPlan:
    """The fastest way to load a backend that fits.

    Tried in this order: everything on the device, float8 storage if allowed, one model at a time,
    one layer at a time; each with the dtypes in the order given.

    Args:
        backend: a registry name.
        device_bytes: memory of the device; on a CPU that of the machine.
        size: side of the pictures in pixels; None takes the backend's usual one.
        dtypes: acceptable ones, the preferred first; empty takes the backend's.
        allow_float8: whether weights may be kept in eight bits, which costs a little quality.

    Raises:
        UnknownName: no figures for this backend, or no such dtype.
        InvalidInput: a size the backend does not draw, or nothing fits; says what would.
    """
    family = _family(backend)
    size = _checked_size(family, size or family.sizes[1])
    for dtype in (*dtypes, *family.dtypes):
        if dtype not in family.dtypes:
            raise UnknownName(
                f"{backend} is not loaded in {dtype!r}. Known: {', '.join(family.dtypes)}."
            )
    ways = [(Offload.NONE, False), (Offload.MODEL, False), (Offload.GROUP, False)]
    if allow_float8 and family.dtypes[0] != "float32":
        ways.insert(1, (Offload.NONE, True))
        ways.insert(3, (Offload.MODEL, True))
    plans = [
        _plan(family, device_bytes, size, dtype, offload, is_float8)
        for offload, is_float8 in ways
        for dtype in (dtypes or family.dtypes)
    ]
    for plan in plans:
        if _needed(family, plan) <= device_bytes:
            return plan
    least = min(_needed(family, plan) for plan in plans)
    raise InvalidInput(
        f"{backend} does not fit in {_gb(device_bytes)} at {size}x{size} pixels, even with "
        f"one layer at a time on the device: it needs {_gb(least)}. "
        f"{_smaller(family, size)}take a bigger device, or the backend embedded."
    )


def rows_that_fit(plan: MemoryPlan) -> int:
    """Rows of a forward pass that fit together, each with a prepared picture of its own.

    For admission control: 0 means nothing fits. More than `MAX_ROWS` bring no speed.
    """
    per_row = plan.bytes_per_forward_row + plan.bytes_per_picture
    return max(0, min(MAX_ROWS, plan.working_bytes // per_row))


def device_bytes(device: str) -> int:
    """All the memory of a CUDA device, such as "cuda" or "cuda:1".

    Raises:
        InvalidInput: there is none.
    """
    import torch

    if not torch.cuda.is_available():
        raise InvalidInput("This machine has no CUDA device. Name a size, e.g. --gpu 12GB.")
    return int(torch.cuda.get_device_properties(device).total_memory)


def parse_memory(text: str) -> int:
    """Bytes of a size as people write it: "12GB", "8 GiB", "24g", "512MB".

    Raises:
        InvalidInput: not understood, or nothing.
    """
    units = {"m": 1_000_000, "mb": 1_000_000, "mib": 2**20, "g": GB, "gb": GB, "gib": 2**30}
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", text)
    unit = units.get(found[2].lower()) if found else None
    if found is None or unit is None or float(found[1]) == 0:
        raise InvalidInput(f"A memory of {text!r} is not understood. Write 12GB, 8GiB or 512MB.")
    return int(float(found[1]) * unit)


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing a plan does to the loaded parts.

    Attributes:
        name: "channels last", "attention kernel", ...
        is_applied: whether it was done.
        why: the reason, or what was chosen.
        is_wanted: whether there was any use for it; what nobody wants is not announced.
    """

    name: str
    is_applied: bool
    why: str
    is_wanted: bool = True


def apply_plan(
    parts: Mapping[str, Any],
    plan: MemoryPlan,
    device: str = "cpu",
    *,
    compile_blocks: bool = True,
    announce: Callable[[str], None] = logger.warning,
) -> list[Measure]:
    """Do to loaded parts what the plan says, and what makes them faster on CUDA.

    Args:
        parts: name -> torch module, named as in the family's `parts`; modules are changed in place.
        plan: from `make_plan`.
        device: "cpu", "cuda", ...; without offload the parts are moved there.
        compile_blocks: whether repeated blocks are compiled, which costs a minute at first use.
        announce: is told each measure that was left out with its reason, once per reason.

    Returns:
        Every measure, done or not, with its reason.
    """
    stepping = {p.name for p in _family(plan.backend).parts if p.stage is Stage.STEP}
    steps = {name: module for name, module in parts.items() if name in stepping}
    measures = [_tile(parts, plan), _store_in_float8(steps, plan)]
    if device.startswith("cuda"):
        measures += [
            _channels_last(parts),
            _attention(steps, plan, device),
            _compile(steps, plan)
            if compile_blocks
            else Measure("compile", False, "not wished", False),
            _place(parts, plan, device),
            _record_graphs(steps, plan),
        ]
    else:
        why = f"{device} is no CUDA device"
        names = ("channels last", "attention kernel", "compile", "CUDA graphs")
        measures += [Measure(name, False, why) for name in names]
        measures.append(Measure("offload", False, why, plan.offload is not Offload.NONE))
        for module in parts.values():
            module.to(device)
    left_out = [measure for measure in measures if measure.is_wanted and not measure.is_applied]
    for reason in dict.fromkeys(measure.why for measure in left_out):
        names_left = ", ".join(measure.name for measure in left_out if measure.why == reason)
        announce(f"Left out: {names_left}; {reason}.")
    return measures


def faster_attention(
    shape: tuple[int, int, int, int],
    device: str,
    dtype: Any,
    seconds: Callable[[Callable[[], object], str], float] | None = None,
) -> tuple[str, str]:
    """Time torch's attention against xformers' on the shapes of the plan.

    Args:
        shape: rows, tokens, heads, width of a head.
        device: where to measure.
        dtype: of the arithmetic.
        seconds: how a call is timed; None takes the median of ten.

    Returns:
        "native" or "xformers", and the reason with figures.
    """
    if importlib.util.find_spec("xformers") is None:
        return "native", "torch's own attention; xformers is not installed"
    import torch
    from torch.nn.functional import scaled_dot_product_attention
    from xformers.ops import memory_efficient_attention  # type: ignore[import-not-found]

    measured = seconds or _median_seconds
    q = torch.randn(shape, device=device, dtype=dtype)
    turned = q.transpose(1, 2)
    native = measured(lambda: scaled_dot_product_attention(turned, turned, turned), device)
    other = measured(lambda: memory_efficient_attention(q, q, q), device)
    figures = f"torch {native * 1e3:.2f} ms, xformers {other * 1e3:.2f} ms on {shape}"
    return ("xformers", figures) if other < 0.97 * native else ("native", figures)


def _family(backend: str) -> Family:
    if backend not in FAMILIES:
        raise UnknownName(
            f"There are no memory figures for the backend {backend!r}. "
            f"Known: {', '.join(FAMILIES)}."
        )
    return FAMILIES[backend]


def _checked_size(family: Family, size: int) -> int:
    low, _, high = family.sizes
    if not low <= size <= high or size % family.multiple:
        wanted = str(low) if low == high else f"{low} to {high}, a multiple of {family.multiple}"
        raise InvalidInput(f"{family.name} does not draw {size} pixels. Choose {wanted}.")
    return size


def _plan(
    family: Family, device_bytes: int, size: int, dtype: str, offload: Offload, is_float8: bool
) -> MemoryPlan:
    storage = "float8" if is_float8 else dtype
    resident = _resident(family, dtype, storage, offload)
    all_weights = sum(_weights(part, dtype, storage) for part in family.parts)
    width = BYTES_PER_VALUE[dtype] / 2
    plan = MemoryPlan(
        backend=family.name,
        size=size,
        device_bytes=device_bytes,
        dtype=dtype,
        storage=storage,
        offload=offload,
        vae_tiling=False,
        weight_bytes=resident[Stage.STEP],
        working_bytes=max(0, device_bytes - RESERVE_BYTES - resident[Stage.STEP]),
        decode_bytes=_decode_bytes(family, dtype, size),
        bytes_per_forward_row=int(SLACK * width * family.row_bytes(size)),
        bytes_per_picture=int(width * family.picture_bytes(size)),
        host_bytes=all_weights - resident[Stage.STEP] if offload is not Offload.NONE else 0,
    )
    if size > TILE_SIZE and plan.decode_bytes > _room_to_decode(family, plan):
        tiled = _decode_bytes(family, dtype, TILE_SIZE) + 4 * 4 * 3 * size * size
        return replace(plan, vae_tiling=True, decode_bytes=tiled)
    return plan


def _resident(family: Family, dtype: str, storage: str, offload: Offload) -> dict[Stage, int]:
    """Weights on the device in each stage."""
    if offload is Offload.GROUP:
        # The layer at work and the one that is being fetched; small tensors stay.
        return {
            stage: 2 * max(_layer(part, dtype) for part in family.parts if part.stage is stage)
            if any(part.stage is stage for part in family.parts)
            else 0
            for stage in Stage
        }
    sizes = {part: _weights(part, dtype, storage) for part in family.parts}
    if offload is Offload.NONE:
        return dict.fromkeys(Stage, sum(sizes.values()))
    return {
        stage: max((n for part, n in sizes.items() if part.stage is stage), default=0)
        for stage in Stage
    }


def _weights(part: Part, dtype: str, storage: str) -> int:
    """Bytes of a part as it is kept."""
    kept = storage if part.stage is Stage.STEP else dtype
    return part.parameters * _width(part, kept)


def _layer(part: Part, dtype: str) -> int:
    return part.largest_layer * _width(part, dtype)


def _width(part: Part, dtype: str) -> int:
    return 4 if part.always_float32 and dtype == "float16" else BYTES_PER_VALUE[dtype]


def _decode_bytes(family: Family, dtype: str, size: int) -> int:
    decoders = [part for part in family.parts if part.stage is Stage.DECODE]
    width = max([_width(part, dtype) for part in decoders] or [BYTES_PER_VALUE[dtype]])
    return int(SLACK * family.decode_bytes_per_pixel * size * size * width / 2)


def _room_to_decode(family: Family, plan: MemoryPlan) -> int:
    """Room for activations while a picture is decoded, beside one prepared picture."""
    resident = _resident(family, plan.dtype, plan.storage, plan.offload)[Stage.DECODE]
    return plan.device_bytes - RESERVE_BYTES - resident - plan.bytes_per_picture


def _needed(family: Family, plan: MemoryPlan) -> int:
    """Device memory with which one row would fit."""
    resident = _resident(family, plan.dtype, plan.storage, plan.offload)
    step = resident[Stage.STEP] + plan.bytes_per_forward_row
    decode = resident[Stage.DECODE] + plan.decode_bytes
    return RESERVE_BYTES + plan.bytes_per_picture + max(step, decode, resident[Stage.PREPARE])


def _smaller(family: Family, size: int) -> str:
    return f"Choose pictures of {family.sizes[0]}, " if size > family.sizes[0] else ""


def _gb(count: int) -> str:
    return f"{count / GB:.1f} GB" if count >= 0.95 * GB else f"{count / 1e6:.0f} MB"


def _tile(parts: Mapping[str, Any], plan: MemoryPlan) -> Measure:
    vae = parts.get("vae")
    if not plan.vae_tiling or vae is None:
        return Measure("decoding in tiles", False, "the whole picture fits", plan.vae_tiling)
    vae.enable_tiling()
    # diffusers' own tiles are as large as the pictures the autoencoder was taught on, 1024 pixels
    # for SDXL and klein: at that size they would save nothing.
    vae.tile_sample_min_size = TILE_SIZE
    vae.tile_latent_min_size = TILE_SIZE // 2 ** (len(vae.config.block_out_channels) - 1)
    return Measure("decoding in tiles", True, f"tiles of {TILE_SIZE} pixels")


def _store_in_float8(steps: Mapping[str, Any], plan: MemoryPlan) -> Measure:
    if not plan.rounds:
        return Measure("float8 storage", False, "weights fit as they are", False)
    import torch

    for module in steps.values():
        module.enable_layerwise_casting(
            storage_dtype=torch.float8_e4m3fn, compute_dtype=getattr(torch, plan.dtype)
        )
    return Measure("float8 storage", True, f"kept in eight bits, counted in {plan.dtype}")


def _channels_last(parts: Mapping[str, Any]) -> Measure:
    import torch

    with_convolutions = [
        name
        for name, module in parts.items()
        if any(isinstance(layer, torch.nn.Conv2d) for layer in module.modules())
    ]
    for name in with_convolutions:
        parts[name].to(memory_format=torch.channels_last)
    done = bool(with_convolutions)
    return Measure("channels last", done, ", ".join(with_convolutions) or "no convolutions")


def _attention(steps: Mapping[str, Any], plan: MemoryPlan, device: str) -> Measure:
    import torch

    # A UNet's processors call torch's attention themselves, whatever backend is set on the model.
    able = {name: m for name, m in steps.items() if hasattr(m, "set_attention_backend")}
    able = {name: m for name, m in able.items() if hasattr(m.config, "joint_attention_dim")}
    if not able:
        return Measure("attention kernel", False, "this model's attention calls torch's directly")
    (module,) = able.values()
    shape = (1, _klein_tokens(plan.size), *_heads(module))
    chosen, why = faster_attention(shape, device, getattr(torch, plan.dtype))
    if chosen != "native":
        module.set_attention_backend(chosen)
    return Measure("attention kernel", True, f"{chosen}: {why}")


def _heads(module: Any) -> tuple[int, int]:
    return int(module.config.num_attention_heads), int(module.config.attention_head_dim)


def _compile(steps: Mapping[str, Any], plan: MemoryPlan) -> Measure:
    if plan.offload is not Offload.NONE or plan.rounds:
        return Measure("compile", False, "hooks that move or widen weights break the graph")
    able = [name for name, module in steps.items() if getattr(module, "_repeated_blocks", None)]
    for name in able:
        steps[name].compile_repeated_blocks()
    return Measure("compile", bool(able), ", ".join(able) or "no repeated blocks")


def _record_graphs(steps: Mapping[str, Any], plan: MemoryPlan) -> Measure:
    name = "CUDA graphs"
    if plan.offload is not Offload.NONE or plan.rounds:
        return Measure(name, False, "hooks that move or widen weights cannot be recorded")
    if plan.size > LARGEST_GRAPHED:
        why = f"at {plan.size} pixels kernels are longer than their launches"
        return Measure(name, False, why, False)
    from imagine.backends.cuda_graphs import ShapedGraphs

    for module in steps.values():
        module.forward = ShapedGraphs(module.forward)
    return Measure(name, True, "each shape seen often is recorded")


def _place(parts: Mapping[str, Any], plan: MemoryPlan, device: str) -> Measure:
    import torch

    if plan.offload is Offload.NONE:
        for module in parts.values():
            module.to(device)
        return Measure("offload", False, "everything fits on the device", False)
    if plan.offload is Offload.MODEL:
        from accelerate import cpu_offload_with_hook  # type: ignore[import-untyped]

        hook = None
        for module in _in_order(parts, plan):
            _, hook = cpu_offload_with_hook(module, device, prev_module_hook=hook)
        return Measure("offload", True, "one model at a time")
    from diffusers.hooks import apply_group_offloading

    for module in parts.values():
        apply_group_offloading(
            module,
            onload_device=torch.device(device),
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            use_stream=device.startswith("cuda"),
        )
    return Measure("offload", True, "one layer at a time, fetched while the one before works")


def _in_order(parts: Mapping[str, Any], plan: MemoryPlan) -> Iterable[Any]:
    """Parts in the order of their work."""
    stages = {part.name: part.stage for part in _family(plan.backend).parts}
    order = list(Stage)
    names = sorted(parts, key=lambda name: order.index(stages.get(name, Stage.PREPARE)))
    return [parts[name] for name in names]


def _median_seconds(call: Callable[[], object], device: str) -> float:
    import torch

    taken = []
    for _ in range(12):
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        call()
        torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[2:])
