from __future__ import annotations

import math
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline as Stock
from diffusers.configuration_utils import FrozenDict
from PIL import Image
from safetensors.torch import load_file, save_file

from imagine.backends import convert_adapter, flux2_klein
from imagine.backends.flux2_klein import (
    Flux2KleinBackend,
    find_folder,
    image_positions,
    pack,
    patchify,
    reference_bias,
    text_positions,
    unpack,
    unpatchify,
)
from imagine.backends.memory_plan import make_plan
from imagine.core import Request
from imagine.errors import CorruptWeights, InvalidInput, MissingWeights
from tests.backends.tiny_flux2_klein import save_tiny, tiny_pipeline
from tests.doubles import double_crops

# A batch adds its products in another order than a single row. Latents are of size 1 to 10 in
# float32, whose last digit is 1e-7 of that; over the steps here differences stayed below 1e-5.
BATCH_TOLERANCE = 1e-4
# The same order of arithmetic as the stock pipeline but for guidance, whose weighted sum is
# written differently: a rounded pixel may fall on the other side.
STOCK_TOLERANCE = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("klein"))


@pytest.fixture(scope="module")
def backend(folder):
    return Flux2KleinBackend.load(folder)


def wish(**changes):
    words = {
        "prompt": "in a forest",
        "crops": double_crops(),
        "seed": 7,
        "num_inference_steps": 3,
        "guidance_scale": 2.0,
        "likeness": 1.0,
    }
    return Request(**{**words, **changes})


def finish(backend, states):
    while states[0].step < states[0].num_steps:
        states = backend.denoise_step(states)
    return states


def photos(crops, size=flux2_klein.REFERENCE_SIZE):
    return [Image.fromarray(crop).resize((size, size), Image.Resampling.LANCZOS) for crop in crops]


@pytest.mark.parametrize("is_distilled", [False, True])
@pytest.mark.parametrize(
    ("crops", "aspect_ratio"),
    [(None, "1:1"), (double_crops(photos=2), "1:1"), (double_crops(photos=2), "16:9")],
)
def test_one_request_is_the_stock_pipelines_picture(tmp_path, is_distilled, crops, aspect_ratio):
    guidance_scale = 1.0 if is_distilled else 3.0
    ours = Flux2KleinBackend.load(save_tiny(tmp_path, is_distilled=is_distilled))
    height, width = ours.info.size_of(aspect_ratio)
    stock = tiny_pipeline(is_distilled=is_distilled)
    stock.set_progress_bar_config(disable=True)
    expected = stock(
        image=None if crops is None else photos(crops),
        prompt="in a forest",
        height=height,
        width=width,
        num_inference_steps=4,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(11),
        output_type="np",
    ).images[0]
    request = wish(
        crops=crops,
        seed=11,
        num_inference_steps=4,
        guidance_scale=guidance_scale,
        aspect_ratio=aspect_ratio,
    )
    (state,) = finish(ours, [ours.prepare(request)])
    difference = np.abs((expected * 255).round() - ours.decode(state))
    assert difference.max() <= STOCK_TOLERANCE
    assert ours.decode(state).std() > 10  # not a flat picture, which anything would equal


def test_two_people_at_different_steps_share_a_forward_and_come_out_as_alone(backend):
    mine, yours = wish(), wish(crops=double_crops(person=3), prompt="on a beach", seed=8)
    ahead = backend.denoise_step([backend.prepare(mine)])[0]
    behind = backend.prepare(yours)
    together = backend.denoise_step([ahead, behind])
    alone = [backend.denoise_step([state])[0] for state in (ahead, behind)]
    for row, single in zip(together, alone, strict=True):
        assert row.step == single.step
        assert torch.allclose(row.latents, single.latents, atol=BATCH_TOLERANCE, rtol=0)


def test_mixed_likeness_and_guidance_share_a_forward_and_come_out_as_alone(backend):
    wishes = [
        wish(),
        wish(likeness=0.4, crops=double_crops(person=2)),
        wish(guidance_scale=1.0, crops=double_crops(person=4), num_inference_steps=5),
    ]
    states = [backend.prepare(one) for one in wishes]
    for row, start in zip(backend.denoise_step(states), states, strict=True):
        (single,) = backend.denoise_step([start])
        assert torch.allclose(row.latents, single.latents, atol=BATCH_TOLERANCE, rtol=0)


def test_swapping_one_rows_references_moves_no_other_row_by_a_bit(backend):
    rows = [backend.prepare(wish(crops=double_crops(person=p), seed=p)) for p in range(3)]
    swapped = [rows[0], backend.prepare(wish(crops=double_crops(person=9), seed=1)), rows[2]]
    before, after = backend.denoise_step(rows), backend.denoise_step(swapped)
    assert torch.equal(before[0].latents, after[0].latents)
    assert torch.equal(before[2].latents, after[2].latents)
    assert (before[1].latents - after[1].latents).abs().max() > 100 * BATCH_TOLERANCE


def test_the_forward_has_as_many_rows_as_promised(backend, monkeypatch):
    seen = []
    forward = backend._transformer.forward
    monkeypatch.setattr(
        backend._transformer,
        "forward",
        lambda **given: seen.append(len(given["hidden_states"])) or forward(**given),
    )
    states = [backend.prepare(wish()), backend.prepare(wish(guidance_scale=1.0))]
    assert [backend.forward_rows(state) for state in states] == [2, 1]
    backend.denoise_step(states)
    assert seen == [3]


def test_guidance_rests_outside_its_interval(backend):
    state = backend.prepare(wish(guidance_interval=(0.0, 0.5), num_inference_steps=4))
    rows = []
    while state.step < state.num_steps:
        rows.append(backend.forward_rows(state))
        (state,) = backend.denoise_step([state])
    assert rows == [2, 2, 1, 1]


def test_prompt_and_person_are_encoded_once_not_at_every_step(backend, monkeypatch):
    calls = []
    encode, read = backend._vae.encode, backend._text_encoder.forward
    monkeypatch.setattr(backend._vae, "encode", lambda x: calls.append("crops") or encode(x))
    monkeypatch.setattr(
        backend._text_encoder, "forward", lambda **given: calls.append("prompt") or read(**given)
    )
    finish(backend, [backend.prepare(wish(guidance_scale=1.0))])
    assert sorted(calls) == ["crops", "prompt"]


def test_nothing_of_a_person_stays_on_the_backend(backend):
    before = {name: id(value) for name, value in vars(backend).items() if name != "_empty_prompt"}
    finish(backend, [backend.prepare(wish())])
    after = {name: id(value) for name, value in vars(backend).items() if name != "_empty_prompt"}
    assert before == after
    assert torch.equal(backend._empty_prompt, backend._encode_prompt(""))


def test_less_likeness_is_nearer_to_nobody(backend):
    nobody = finish(backend, [backend.prepare(wish(crops=None))])[0].latents
    distances = [
        float(
            (finish(backend, [backend.prepare(wish(likeness=s))])[0].latents - nobody).abs().mean()
        )
        for s in (1e-6, 0.3, 1.0)
    ]
    assert distances[0] < 1e-3 < distances[1] < distances[2]


def test_reference_bias_weighs_attention_by_likeness():
    scores = torch.tensor([1.0, 2.0, 0.5])
    bias = reference_bias([1.0, 0.25], before=2, references=1)
    weights = (scores + bias[:, 0, 0]).exp()
    assert torch.allclose(weights[0], scores.exp())
    assert torch.allclose(weights[1], scores.exp() * torch.tensor([1, 1, 0.25]))


def test_positions_are_the_stock_pipelines():
    references = [torch.zeros(1, 8, 3, 2), torch.zeros(1, 8, 3, 2)]
    picture = Stock._prepare_latent_ids(torch.zeros(1, 8, 4, 5))[0]
    expected = torch.cat([picture, Stock._prepare_image_ids(references)[0]])
    assert torch.equal(image_positions((4, 5), (3, 2), 2), expected)
    assert torch.equal(text_positions(7), Stock._prepare_text_ids(torch.zeros(1, 7, 8))[0])


def test_packing_is_the_stock_pipelines_and_can_be_undone():
    latents = torch.randn(2, 3, 4, 6)
    assert torch.equal(patchify(latents), Stock._patchify_latents(latents))
    assert torch.equal(pack(latents), Stock._pack_latents(latents))
    assert torch.equal(unpatchify(patchify(latents)), latents)
    assert torch.equal(unpack(pack(latents), (4, 6)), latents)


def test_infinite_latents_are_noticed(backend):
    state = backend.prepare(wish())
    assert backend.is_finite(state)
    spoilt = state.latents.clone()
    spoilt[0, 0] = math.nan
    assert not backend.is_finite(replace(state, latents=spoilt))


def test_distilled_weights_refuse_guidance_they_would_ignore(tmp_path):
    distilled = Flux2KleinBackend.load(save_tiny(tmp_path, is_distilled=True))
    assert (distilled.info.default_steps, distilled.info.default_guidance_scale) == (4, 1.0)
    with pytest.raises(InvalidInput, match="guidance_scale is 3"):
        distilled.prepare(wish(guidance_scale=3.0))


def test_a_prompt_longer_than_the_model_reads_is_refused_not_cut(backend):
    with pytest.raises(InvalidInput, match="reads 512"):
        backend.prepare(wish(prompt="very " * 200))


@pytest.mark.parametrize("size", [50, 72])
def test_sizes_between_tokens_are_refused(folder, size):
    with pytest.raises(InvalidInput, match=f"{size} pixels"):
        Flux2KleinBackend.load(folder, image_size=size)


def test_a_plan_for_another_backend_is_refused(folder):
    with pytest.raises(InvalidInput, match="is for 'sdxl_faceid'"):
        Flux2KleinBackend.load(folder, plan=make_plan("sdxl_faceid", 24_000_000_000))


def test_another_picture_size_can_be_chosen(folder):
    large = Flux2KleinBackend.load(folder, image_size=96)
    state = large.prepare(wish(crops=None))
    assert large.decode(state).shape == (96, 96, 3)
    assert state.batch_key != Flux2KleinBackend.load(folder).prepare(wish(crops=None)).batch_key


def test_half_precision_stays_near_the_full(folder, backend):
    half = Flux2KleinBackend.load(folder, dtype=torch.bfloat16)
    full_start, start = backend.prepare(wish()), half.prepare(wish())
    assert start.latents.dtype == torch.float32 and start.prompt_embeds.dtype == torch.bfloat16
    # Both begin from the same digits, so that only the model's rounding is compared.
    (state,) = half.denoise_step([replace(start, latents=full_start.latents)])
    (full,) = backend.denoise_step([full_start])
    moved = (full.latents - full_start.latents).abs().mean()
    # bfloat16 keeps eight bits; through 28 layers of text and three blocks 2 % of a step was lost.
    assert (state.latents - full.latents).abs().mean() < 0.1 * moved


def copied(folder, target):
    shutil.copytree(folder, target)
    return target


@pytest.mark.parametrize("part", flux2_klein.PARTS)
def test_a_missing_part_is_named_with_the_command_that_gets_it(folder, tmp_path, part):
    incomplete = copied(folder, tmp_path / "incomplete")
    shutil.rmtree(incomplete / part)
    with pytest.raises(MissingWeights, match=rf"{part}/ is missing.*hf download"):
        Flux2KleinBackend.load(incomplete)


def test_a_hub_id_that_is_not_cached_is_missing_not_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGINE_ASSETS_DIR", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"FLUX\.2-klein-4B.*hf download"):
        find_folder()


def test_a_cached_hub_id_is_found(monkeypatch, tmp_path, folder):
    cached = tmp_path / "models--somebody--klein" / "snapshots" / "0123456789abcdef"
    copied(folder, cached)
    (tmp_path / "models--somebody--klein" / "refs").mkdir()
    (tmp_path / "models--somebody--klein" / "refs" / "main").write_text("0123456789abcdef")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_folder(Path("somebody/klein")) == cached


def test_a_pickle_is_refused_by_name_with_a_safe_conversion(folder, tmp_path):
    pickled = copied(folder, tmp_path / "pickled")
    weights = pickled / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(CorruptWeights, match=r"model\.bin is a pickle.*convert_adapter"):
        Flux2KleinBackend.load(pickled)


def test_the_conversion_we_print_works(folder, tmp_path):
    pickled = copied(folder, tmp_path / "pickled")
    weights = pickled / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(CorruptWeights) as refused:
        Flux2KleinBackend.load(pickled)
    command = re.search(r"python -m imagine.backends.convert_adapter (.*)$", str(refused.value))
    assert convert_adapter.main(shlex.split(command[1])) == 0
    assert Flux2KleinBackend.load(pickled).info.name == "flux2_klein"


def test_missing_weights_are_not_filled_with_random_numbers(folder, tmp_path):
    cut = copied(folder, tmp_path / "cut")
    weights = cut / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    tensors.pop("model.layers.3.mlp.up_proj.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(CorruptWeights, match="text_encoder lacks 1 weights"):
        Flux2KleinBackend.load(cut)


def test_damaged_weights_are_corrupt(folder, tmp_path):
    damaged = copied(folder, tmp_path / "damaged")
    weights = damaged / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(CorruptWeights, match="cannot be loaded"):
        Flux2KleinBackend.load(damaged)


def test_the_revision_follows_the_weights(folder, tmp_path, backend):
    other = copied(folder, tmp_path / "other")
    weights = other / "vae" / "diffusion_pytorch_model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    revisions = [Flux2KleinBackend.load(place).info.model_revision for place in (folder, other)]
    assert revisions[0] == backend.info.model_revision != revisions[1]


LAYERS = ("transformer_blocks.0.attn.to_out.0", "single_transformer_blocks.1.attn.to_out")


def lora_tensors(backend, prefix="transformer"):
    torch.manual_seed(1)
    layers = dict(backend._transformer.named_modules())
    tensors = {}
    for layer in LAYERS:
        outputs, inputs = layers[layer].weight.shape
        tensors[f"{prefix}.{layer}.lora_A.weight"] = torch.randn(4, inputs)
        tensors[f"{prefix}.{layer}.lora_B.weight"] = torch.randn(outputs, 4)
    return tensors


def test_loras_of_the_folder_are_added_to_the_weights(folder, tmp_path, backend):
    styled_folder = copied(folder, tmp_path / "styled")
    (styled_folder / "lora").mkdir()
    tensors = lora_tensors(backend)
    notes = {"lora_adapter_metadata": '{"transformer.lora_alpha": 2, "transformer.r": 4}'}
    save_file(tensors, styled_folder / "lora" / "style.safetensors", metadata=notes)
    styled = Flux2KleinBackend.load(styled_folder)
    before, after = (dict(b._transformer.named_modules()) for b in (backend, styled))
    for layer in LAYERS:
        down, up = (tensors[f"transformer.{layer}.lora_{x}.weight"] for x in "AB")
        expected = before[layer].weight + 0.5 * up @ down
        assert torch.allclose(after[layer].weight, expected, atol=1e-5)
    assert styled.info.model_revision != backend.info.model_revision
    assert not np.array_equal(
        *(b.decode(finish(b, [b.prepare(wish())])[0]) for b in (backend, styled))
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {k.replace("transformer.", "unet.", 1): v for k, v in t.items()}, "unet"),
        (lambda t: {k: v for k, v in t.items() if "lora_A" in k}, "lora_A"),
        (lambda t: {"transformer.proj_out.lora_magnitude_vector": torch.ones(2), **t}, "magnitude"),
        (lambda t: {"nothing": torch.ones(2)}, "nothing"),
        (lambda t: {k.replace("to_out", "to_in"): v for k, v in t.items()}, "to_in"),
    ],
)
def test_what_is_no_lora_for_klein_is_refused(folder, tmp_path, backend, change, words):
    odd = copied(folder, tmp_path / "odd")
    (odd / "lora").mkdir()
    save_file(change(lora_tensors(backend)), odd / "lora" / "style.safetensors")
    with pytest.raises(CorruptWeights, match=words):
        Flux2KleinBackend.load(odd)


def test_a_pickled_lora_is_refused(folder, tmp_path):
    odd = copied(folder, tmp_path / "odd")
    (odd / "lora").mkdir()
    torch.save({}, odd / "lora" / "style.pt")
    with pytest.raises(CorruptWeights, match=r"style\.pt is a pickle"):
        Flux2KleinBackend.load(odd)


@pytest.mark.parametrize(
    ("width", "licence"),
    [(7680, "Apache-2.0"), (12288, "LicenseRef-FLUX-Non-Commercial"), (48, "LicenseRef-unknown")],
)
def test_the_licence_is_that_of_the_family_member_loaded(backend, monkeypatch, width, licence):
    config = {**backend._transformer.config, "joint_attention_dim": width}
    monkeypatch.setattr(backend._transformer, "_internal_dict", FrozenDict(config))
    assert backend.info.licence == licence
