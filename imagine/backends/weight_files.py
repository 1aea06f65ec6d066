"""Opens files of weights and says what is missing.

Only safetensors are opened. Nothing is ever fetched: a hub id means the copy in the local cache.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from imagine.errors import CorruptWeights, MissingWeights

PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# How the small models of our own are opened: from here only, and in single precision.
OWN_MODELS: dict[str, Any] = {
    "local_files_only": True,
    "use_safetensors": True,
    "torch_dtype": torch.float32,
    "low_cpu_mem_usage": False,
}


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
            f"{folder} cannot be loaded ({in_short(error)}). Get it again with: {command}"
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
            f"{folder} cannot be loaded ({in_short(error)}). Get it again."
        ) from error


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the notes of a file.

    Raises:
        CorruptWeights: it cannot be read.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptWeights(f"{path} cannot be read ({in_short(error)}). Get it again.") from error


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


def in_short(error: Exception) -> str:
    """The first line of a foreign error, for messages."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"
