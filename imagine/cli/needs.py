"""What one backend needs on this machine: which parts are here, and how to get the others.

Looks for files without opening the weights in them, so it is quick and needs no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imagine.errors import ImagineError
from imagine.settings import Settings


@dataclass(frozen=True, slots=True)
class Need:
    """One thing a backend needs.

    Attributes:
        role: "base", "adapter", "face pack", "text encoder", "image encoder" or "package".
        name: of it.
        is_here: whether it lies on this machine.
        detail: where it is, or what is missing and the command that gets it.
        licence: of the weights; empty for packages.
        size: in words; empty where it matters to nobody.
    """

    role: str
    name: str
    is_here: bool
    detail: str
    licence: str = ""
    size: str = ""


def needs_of(backend: str, settings: Settings) -> list[Need]:
    """Everything the backend needs, in the order it is used.

    Raises:
        UnknownName: no such backend.
    """
    from imagine.backends import BACKENDS

    BACKENDS.check(backend)
    if backend == "fake":
        return []
    if backend == "embedded":
        return _embedded(settings)
    if backend == "flux2_klein":
        return _klein()
    if backend in ("sd15_faceid", "sdxl_faceid"):
        return _faceid(backend, settings)
    return [_loadable(backend)]


def _embedded(settings: Settings) -> list[Need]:
    from imagine.backends.embedded import MODEL_FOLDER
    from imagine.backends.minilm import text_encoder_folder
    from imagine.backends.weight_files import find_base

    folder = settings.assets_directory / "models" / MODEL_FOLDER
    parts = ("denoiser", "identity_adapter", "scheduler", "upsampler", "face_refiner")
    command = "git checkout -- assets/models"
    return [
        _looked_for(
            "embedded", "base", lambda: find_base(folder, parts, "The embedded model", command)
        ),
        _looked_for("embedded", "text encoder", text_encoder_folder),
    ]


def _klein() -> list[Need]:
    from imagine.backends.flux2_klein import DOWNLOAD, WEIGHTED_PARTS, find_folder
    from imagine.backends.weight_files import weights_in

    def look() -> Path:
        folder = find_folder()
        for part in WEIGHTED_PARTS:
            weights_in(folder / part, f"the {part}", DOWNLOAD)
        return folder

    return [_looked_for("flux2_klein", "base", look)]


def _faceid(backend: str, settings: Settings) -> list[Need]:
    from imagine.backends import BACKENDS
    from imagine.backends.unet_faceid import ADAPTER_HUB_ID
    from imagine.backends.weight_files import find_base, weights_in
    from imagine.identity.insightface_faces import find_pack

    kind: Any = BACKENDS.get(backend)
    own = settings.assets_directory / "models" / kind.folder_name
    fetch = kind.download_command(own)
    published = own / "ip_adapter" / kind.adapter_file
    adapter = (
        f"hf download {ADAPTER_HUB_ID} {kind.adapter_file} --local-dir '{published.parent}', then "
        f"python -m imagine.backends.convert_adapter '{published}' "
        f"'{published.with_suffix('.safetensors')}'"
    )

    def look_for_base() -> Path:
        folder = find_base(own, kind.base_parts(), kind.title, fetch)
        for part in (part for part in kind.base_parts() if part in _WEIGHTED):
            weights_in(folder / part, f"the {part}", fetch)
        return folder

    def look_for_adapter() -> Path:
        return weights_in(published.parent, "an IP-Adapter FaceID", adapter)[0]

    found = _looked_for(backend, "adapter", look_for_adapter)
    return [
        _looked_for(backend, "base", look_for_base),
        found,
        *([_image_encoder(own)] if found.is_here and _is_plus(look_for_adapter()) else []),
        _package("insightface"),
        _package("onnxruntime"),
        _looked_for(backend, "face pack", lambda: find_pack(settings)),
    ]


_WEIGHTED = ("unet", "vae", "text_encoder", "text_encoder_2")


# Fused into the UNet at loading, so no part of the memory plan; rank 128 on every attention layer.
_LORA_PARAMETERS = {"sd15_faceid": 25_509_888, "sdxl_faceid": 185_794_560}


def _is_plus(adapter: Path) -> bool:
    """Whether an adapter looks at the face through CLIP beside its embedding."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter, framework="pt", device="cpu") as opened:
            return any("perceiver_resampler" in key for key in opened.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return False  # loading will say what is wrong with it


def _image_encoder(own: Path) -> Need:
    folder = own / "image_encoder"
    name, licence, size = "CLIP ViT-H of LAION", "MIT", "1.3 GB in half precision"
    if any(folder.glob("*.safetensors")):
        return Need("image encoder", name, True, str(folder), licence, size)
    command = (
        "This adapter looks at faces through CLIP. Get it with: hf download "
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K config.json model.safetensors "
        f"--local-dir '{folder}'"
    )
    return Need("image encoder", name, False, command, licence, size)


def _package(name: str) -> Need:
    if find_spec(name) is not None:
        return Need("package", name, True, "installed")
    advice = "It is not installed. Run: pip install 'imagine-yourself[insightface]'"
    return Need("package", name, False, advice)


def _looked_for(backend: str, role: str, look: Callable[[], Path]) -> Need:
    """A part of the licence chain, looked for."""
    from imagine.backends.licences import licence_chain

    try:
        place: Path | None = look()
        detail = str(place)
    except (ImagineError, ImportError) as error:
        place, detail = None, str(error)
    packs = [place.name] if role == "face pack" and place is not None else []
    weights = place if role == "base" else None
    chain = licence_chain(backend, weights=weights, face_packs=packs)
    # The pack that lies here, if it is not the one the backend names, comes last.
    part = [part for part in chain if part.role == role][-1]
    licence = f"{part.licence}, {part.terms}"
    return Need(role, part.name, place is not None, detail, licence, _size(backend, role))


def _loadable(backend: str) -> Need:
    """For a backend somebody else registered: whether it can be opened at all."""
    from imagine.backends import BACKENDS

    try:
        info = BACKENDS.get(backend).load().info
    except (ImagineError, ImportError) as error:
        return Need("base", backend, False, str(error))
    return Need("base", backend, True, f"revision {info.model_revision}", info.licence)


def _size(backend: str, role: str) -> str:
    """Of the weights, from the memory plan's counts; a download may hold other precisions too."""
    from imagine.backends.memory_plan import FAMILIES

    if role == "face pack":
        return "0.3 GB"  # buffalo_l, as its publisher states
    if backend == "flux2_klein":
        return "16 GB"  # with the eight layers of the text encoder that are not loaded
    parts = {part.name: part.parameters for part in FAMILIES[backend].parts}
    if role == "adapter":
        counted = parts["ip_adapter"] + _LORA_PARAMETERS[backend]
    elif backend == "embedded":
        text = parts.pop("text_encoder")
        counted = 2 * text if role == "text encoder" else sum(parts.values())  # float32 is twice
    else:
        counted = sum(count for name, count in parts.items() if name != "ip_adapter")
    size = 2 * counted
    rounded = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
    return rounded if backend == "embedded" else f"{rounded} in half precision"
