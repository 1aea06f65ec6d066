from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from imagine.backends.lora import fuse_lora, read_lora
from imagine.backends.sd15_faceid import Sd15FaceIdBackend
from imagine.backends.sdxl_faceid import SdxlFaceIdBackend
from imagine.errors import CorruptWeights, MissingWeights
from tests.backends.tiny_faceid import save_tiny, tiny_eye, tiny_sd15

# One product of two small matrices and one sum in float32, on both sides.
FUSE_TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("sd15"), "sd15_faceid")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def adapter_of(folder: Path) -> Path:
    (path,) = (folder / "ip_adapter").iterdir()
    return path


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(path)), path)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named_with_the_command_that_gets_it(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    with pytest.raises(MissingWeights, match=rf"{part}/ is missing.*hf download stable-diffusion"):
        Sd15FaceIdBackend.load(folder)


def test_a_hub_id_that_is_not_in_the_cache_is_missing_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"someone/some-model.*hub id"):
        SdxlFaceIdBackend.load(Path("someone/some-model"))


def test_a_hub_id_in_the_local_cache_is_loaded_from_there(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--someone--some-model", "c" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(saved, repository / "snapshots" / commit)
    cached = Sd15FaceIdBackend.load(Path("someone/some-model"))
    assert cached.info.model_revision == Sd15FaceIdBackend.load(saved).info.model_revision


def test_a_missing_adapter_is_named_with_the_two_commands_that_get_it(folder: Path) -> None:
    shutil.rmtree(folder / "ip_adapter")
    with pytest.raises(MissingWeights, match=r"ip-adapter-faceid_sd15.bin.*convert_adapter"):
        Sd15FaceIdBackend.load(folder)


@pytest.mark.parametrize("ending", ["bin", "ckpt", "pt"])
def test_a_pickled_adapter_is_refused_with_the_command_that_converts_it(
    folder: Path, ending: str
) -> None:
    path = adapter_of(folder)
    pickle = path.rename(path.with_suffix(f".{ending}"))
    expected = rf"{pickle.name} is a pickle.*convert_adapter '.*\.{ending}' '.*\.safetensors'"
    for choice in ({}, {"adapter": pickle}):
        with pytest.raises(CorruptWeights, match=expected):
            Sd15FaceIdBackend.load(folder, **choice)


def test_a_pickled_base_model_and_a_pickled_lora_are_refused_too(folder: Path) -> None:
    (folder / "lora").mkdir()
    (folder / "lora" / "style.pt").write_bytes(b"anything")
    with pytest.raises(CorruptWeights, match=r"style.pt is a pickle"):
        Sd15FaceIdBackend.load(folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(CorruptWeights, match=r"diffusion_pytorch_model.bin is a pickle"):
        Sd15FaceIdBackend.load(folder)


def test_an_adapter_of_another_base_is_refused(folder: Path, tmp_path: Path) -> None:
    other = adapter_of(save_tiny(tmp_path / "sdxl", "sdxl_faceid"))
    with pytest.raises(CorruptWeights, match="made for another base model"):
        Sd15FaceIdBackend.load(folder, adapter=other)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("image_proj.norm", "is not an IP-Adapter FaceID"),
        ("image_proj.proj.2", "image_proj part"),
        ("ip_adapter.3.to_k_ip", r"3\.to_k_ip\.weight is missing"),
        ("ip_adapter.2.to_q_lora.up", r"2\.to_q_lora is missing"),
    ],
)
def test_an_adapter_with_a_gap_is_refused_by_the_name_of_the_gap(
    folder: Path, gone: str, message: str
) -> None:
    rewrite(adapter_of(folder), lambda w: {k: v for k, v in w.items() if not k.startswith(gone)})
    with pytest.raises(CorruptWeights, match=message):
        Sd15FaceIdBackend.load(folder)


def test_an_adapter_without_a_lora_is_welcome(folder: Path) -> None:
    rewrite(adapter_of(folder), lambda w: {k: v for k, v in w.items() if "_lora" not in k})
    assert Sd15FaceIdBackend.load(folder).info.name == "sd15_faceid"


def test_two_adapters_are_one_too_many_unless_one_is_named(folder: Path) -> None:
    path = adapter_of(folder)
    shutil.copy(path, path.with_name("another.safetensors"))
    with pytest.raises(CorruptWeights, match="2 adapters"):
        Sd15FaceIdBackend.load(folder)
    assert Sd15FaceIdBackend.load(folder, adapter=path).info.model_revision


def test_faceid_plus_without_its_clip_is_missing_weights(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "plus", "sd15_faceid", plus=True)
    shutil.rmtree(folder / "image_encoder")
    with pytest.raises(MissingWeights, match=r"image_encoder.*CLIP-ViT-H-14"):
        Sd15FaceIdBackend.load(folder)
    tiny_eye().save_pretrained(folder / "image_encoder")
    assert Sd15FaceIdBackend.load(folder).info.name == "sd15_faceid"


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_cut_or_incomplete_base_weights_are_corrupt(folder: Path, part: str) -> None:
    (path,) = (folder / part).glob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptWeights, match=rf"{part} cannot be loaded"):
        Sd15FaceIdBackend.load(folder)
    path.write_bytes(whole)
    rewrite(path, lambda w: dict(list(w.items())[1:]))
    with pytest.raises(CorruptWeights, match=rf"{part} lacks 1 weights"):
        Sd15FaceIdBackend.load(folder)


def test_the_scheduler_folder_chooses_the_sampler_and_pndm_becomes_ddim(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    for scheduler, sampler in (
        ("EulerDiscreteScheduler", "euler"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m"),
        ("PNDMScheduler", "ddim"),
    ):
        path.write_text(json.dumps({**config, "_class_name": scheduler}))
        assert Sd15FaceIdBackend.load(folder)._sampler == sampler
    assert "drawing with DDIM" in caplog.text
    path.write_text(json.dumps({**config, "_class_name": "LCMScheduler"}))
    with pytest.raises(CorruptWeights, match="LCMScheduler"):
        Sd15FaceIdBackend.load(folder)


def test_the_revision_follows_base_adapter_and_lora(folder: Path) -> None:
    revisions = [Sd15FaceIdBackend.load(folder).info.model_revision]
    rewrite(adapter_of(folder), lambda w: {k: v * 1.01 for k, v in w.items()})
    revisions.append(Sd15FaceIdBackend.load(folder).info.model_revision)
    (folder / "lora").mkdir()
    save_file(style_lora("peft"), folder / "lora" / "style.safetensors")
    revisions.append(Sd15FaceIdBackend.load(folder).info.model_revision)
    assert len(set(revisions)) == 3


def style_lora(layout: str) -> dict[str, Tensor]:
    """A LoRA on attention, a convolution and the text encoder, as the trainers in use write it."""
    generator = torch.Generator().manual_seed(3)
    attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    out = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0"
    convolution = "down_blocks.0.resnets.0.conv1"
    shapes: dict[tuple[str, str], tuple[tuple[int, ...], tuple[int, ...]]] = {
        ("unet", attention): ((4, 32), (32, 4)),
        ("unet", out): ((4, 32), (32, 4)),
        ("unet", convolution): ((4, 32, 3, 3), (32, 4, 1, 1)),
        ("text_encoder", "text_model.encoder.layers.1.self_attn.q_proj"): ((4, 32), (32, 4)),
        ("text_encoder", "text_model.encoder.layers.0.self_attn.out_proj"): ((4, 32), (32, 4)),
    }
    names = {"unet": "lora_unet", "text_encoder": "lora_te"}
    weights = {}
    for (model, layer), (down, up) in shapes.items():
        pair = [0.1 * torch.randn(shape, generator=generator) for shape in (down, up)]
        if layout.startswith("peft"):
            weights[f"{model}.{layer}.lora_A.weight"] = pair[0]
            weights[f"{model}.{layer}.lora_B.weight"] = pair[1]
        else:
            name = f"{names[model]}_{layer.replace('.', '_')}"
            weights[f"{name}.lora_down.weight"] = pair[0]
            weights[f"{name}.lora_up.weight"] = pair[1]
            weights[f"{name}.alpha"] = torch.tensor(2.0)
    return weights


def peft_notes(**changes: Any) -> dict[str, str]:
    """What peft writes into the head of a file about the UNet."""
    layers = [key.removeprefix("unet.") for key in style_lora("peft") if key.startswith("unet.")]
    targets = [key.removesuffix(".lora_A.weight") for key in layers if ".lora_A." in key]
    notes = {"r": 4, "lora_alpha": 4, "target_modules": targets, **changes}
    spelled = {f"unet.{name}": value for name, value in notes.items()}
    return {"format": "pt", "lora_adapter_metadata": json.dumps(spelled)}


@pytest.mark.parametrize("layout", ["peft", "peft with alpha", "kohya"])
def test_a_style_lora_changes_the_weights_as_stock_fusing_does(
    saved: Path, tmp_path: Path, layout: str
) -> None:
    path = tmp_path / "style.safetensors"
    weights = style_lora(layout)
    if "alpha" in layout:
        # Stock cannot open such notes about a text encoder together with transformers 5.
        weights = {key: weight for key, weight in weights.items() if key.startswith("unet.")}
        save_file(weights, path, peft_notes(lora_alpha=8))
    else:
        save_file(weights, path)
    stock: Any = StableDiffusionPipeline.from_pretrained(saved, safety_checker=None)
    stock.load_lora_weights(tmp_path, weight_name=path.name)
    stock.fuse_lora()
    stock.unload_lora_weights()
    ours: Any = StableDiffusionPipeline.from_pretrained(saved, safety_checker=None)
    models = ("unet", "text_encoder")
    before = {
        (model, name): weight.clone()
        for model in models
        for name, weight in getattr(ours, model).state_dict().items()
    }
    for model, pairs in read_lora(path, ours.unet.config).items():
        fuse_lora(getattr(ours, model), pairs, path)
    changed = []
    for model in models:
        expected = getattr(stock, model).state_dict()
        for name, weight in getattr(ours, model).state_dict().items():
            assert float((weight - expected[name]).abs().max()) < FUSE_TOLERANCE, name
            if not torch.equal(weight, before[model, name]):
                changed.append(model)
    assert changed == ["unet"] * 3 + ["text_encoder"] * (2 if len(weights) > 6 else 0)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"unet.a.lora_A.weight": torch.ones(2, 3)}, "not a LoRA of a kind known here"),
        ({"unet.a.hada_w1_a": torch.ones(2, 3)}, "not a plain LoRA"),
        ({"something.else": torch.ones(2)}, "not a LoRA of a kind known here"),
    ],
)
def test_what_cannot_be_fused_is_refused_and_not_skipped(
    tmp_path: Path, weights: dict[str, Tensor], message: str
) -> None:
    save_file(weights, tmp_path / "odd.safetensors")
    with pytest.raises(CorruptWeights, match=message):
        read_lora(tmp_path / "odd.safetensors", tiny_sd15().unet.config)


def test_a_lora_with_another_rule_of_strength_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    save_file(style_lora("peft"), path, peft_notes(use_rslora=True))
    with pytest.raises(CorruptWeights, match="use_rslora"):
        read_lora(path, tiny_sd15().unet.config)


@pytest.mark.parametrize("layer", ["no.such.layer", "conv_in"])
def test_a_lora_of_another_model_is_refused_by_the_layer(tmp_path: Path, layer: str) -> None:
    path = tmp_path / "other.safetensors"
    pair = {"lora_A": torch.ones(2, 3), "lora_B": torch.ones(5, 2)}
    save_file({f"unet.{layer}.{part}.weight": tensor for part, tensor in pair.items()}, path)
    unet = tiny_sd15().unet
    (pairs,) = read_lora(path, unet.config).values()
    with pytest.raises(CorruptWeights, match=rf"{layer} (is no layer|has another shape)"):
        fuse_lora(unet, pairs, path)
