from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor

from imagine.backends.base import PersonEncoder, RowState
from imagine.backends.faceid_identity import ARCFACE_SQUARE, arcface_square, clip_pixels
from imagine.backends.memory_plan import GB, make_plan
from imagine.backends.unet_faceid import FaceIdBackend, FaceIdState
from imagine.core import Request
from imagine.errors import InvalidInput, MissingWeights
from imagine.identity.align import TEMPLATE, similarity_transform
from imagine.identity.insightface_faces import ARCFACE_SIDE, ARCFACE_TEMPLATE
from tests.backends.tiny_faceid import embed_crops, load_tiny
from tests.doubles import double_crops

KINDS = [(name, plus) for name in ("sd15_faceid", "sdxl_faceid") for plus in (False, True)]
# All as shares of the largest latent. The LoRA is added to the weights here and to the outputs
# there, and sums run in another order: some last bits of float32, carried through all steps.
STOCK_TOLERANCE = 1e-5
# Rows of one matrix product are summed in another order for another number of rows.
BATCH_TOLERANCE = 1e-5
STEPS = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    @cache
    def opened(name: str, plus: bool) -> tuple[FaceIdBackend, Path]:
        folder = tmp_path_factory.mktemp(f"{name}-{plus}")
        return load_tiny(name, folder, plus=plus), folder

    yield opened


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}{'-plus' * kind[1]}")
def kind(request: pytest.FixtureRequest, folders: Any) -> tuple[str, bool]:
    chosen: tuple[str, bool] = request.param
    return chosen


@pytest.fixture(scope="module")
def backend(folders: Any, kind: tuple[str, bool]) -> FaceIdBackend:
    opened: FaceIdBackend = folders(*kind)[0]
    return opened


@pytest.fixture(scope="module")
def sdxl(folders: Any) -> FaceIdBackend:
    opened: FaceIdBackend = folders("sdxl_faceid", False)[0]
    return opened


def wish(person: int | None = 0, photos: int = 2, **changes: Any) -> Request:
    crops = None if person is None else double_crops(person, photos)
    return replace(Request("in a forest", crops, 7, STEPS, 5.0, 0.7), **changes)


def test_two_people_are_refused_by_name(sdxl: FaceIdBackend) -> None:
    with pytest.raises(InvalidInput, match="'sdxl_faceid' draws one person"):
        sdxl.prepare(wish(beside=double_crops(1)))


def test_a_switched_trait_is_asked_for_in_words(sdxl: FaceIdBackend) -> None:
    switched = sdxl.prepare(wish(prompt="smiling, in a forest", traits={"glasses": "none"}))
    worded = sdxl.prepare(wish(prompt="smiling, in a forest, without glasses"))
    assert sdxl.info.traits == "words"
    assert torch.equal(switched.text.keys, worded.text.keys)


def walk(backend: FaceIdBackend, requests: list[Request], ahead: int = 0) -> list[FaceIdState]:
    """Draw all requests in shared calls; row i starts alone and is `ahead * i` steps ahead."""
    states: list[RowState] = [backend.prepare(request) for request in requests]
    for index in range(len(states)):
        for _ in range(ahead * index):
            (states[index],) = backend.denoise_step([states[index]])
    while moving := [i for i, state in enumerate(states) if state.step < state.num_steps]:
        for i, moved in zip(moving, backend.denoise_step([states[i] for i in moving]), strict=True):
            states[i] = moved
    return [state for state in states if isinstance(state, FaceIdState)]


def one(backend: FaceIdBackend, request: Request) -> FaceIdState:
    (state,) = walk(backend, [request])
    return state


def difference(first: Tensor, second: Tensor) -> float:
    """The largest, as a share of the largest value."""
    return float((first - second).abs().max() / second.abs().max())


def stock_pipeline(name: str, plus: bool, folder: Path) -> Any:
    pipeline_class = StableDiffusionXLPipeline if "xl" in name else StableDiffusionPipeline
    pipeline = pipeline_class.from_pretrained(folder, local_files_only=True, image_encoder=None)
    pipeline.set_progress_bar_config(disable=True)
    (adapter,) = (folder / "ip_adapter").iterdir()
    pipeline.load_ip_adapter(
        folder,
        subfolder="ip_adapter",
        weight_name=adapter.name,
        image_encoder_folder=None,
        local_files_only=True,
    )
    return pipeline


def show_person(pipeline: Any, backend: FaceIdBackend, request: Request, *, plus: bool) -> Tensor:
    """The person as stock pipelines want it; FaceID-Plus reads half of it off the module."""
    assert request.crops is not None
    faces = torch.from_numpy(embed_crops(request.crops))[None]
    is_guided = request.guidance_scale > 1.0
    if plus:
        eye = backend._projection._eye
        assert eye is not None
        with torch.inference_mode():
            seen = eye.tokens(request.crops)[None]
        nothing = eye.nothing.expand_as(seen[0])[None]
        layer = pipeline.unet.encoder_hid_proj.image_projection_layers[0]
        layer.clip_embeds = torch.cat([nothing, seen] if is_guided else [seen]).clone()
        layer.shortcut = True
    pipeline.set_ip_adapter_scale(request.likeness)
    return torch.cat([torch.zeros_like(faces), faces]) if is_guided else faces


@pytest.mark.parametrize(
    ("guidance_scale", "aspect_ratio"), [(1.0, "1:1"), (5.0, "1:1"), (5.0, "9:16"), (5.0, "16:9")]
)
def test_one_request_ends_where_the_stock_pipeline_ends(
    folders: Any, kind: tuple[str, bool], guidance_scale: float, aspect_ratio: str
) -> None:
    backend, folder = folders(*kind)
    request = wish(guidance_scale=guidance_scale, likeness=0.6, aspect_ratio=aspect_ratio)
    height, width = backend.info.size_of(aspect_ratio)
    pipeline = stock_pipeline(*kind, folder)
    stock = pipeline(
        request.prompt,
        height=height,
        width=width,
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        ip_adapter_image_embeds=[show_person(pipeline, backend, request, plus=kind[1])],
        generator=torch.Generator().manual_seed(request.seed),
        output_type="latent",
    ).images[0]
    ours = one(backend, request)
    assert difference(ours.latents, stock) < STOCK_TOLERANCE
    with torch.inference_mode():
        image = pipeline.vae.decode(stock[None] / pipeline.vae.config.scaling_factor).sample
    expected = pipeline.image_processor.postprocess(image, output_type="np")[0] * 255.0
    assert np.abs(backend.decode(ours) - expected).max() <= 1.0


def test_the_person_and_the_strength_matter_to_the_picture(backend: FaceIdBackend) -> None:
    pictures = [
        one(backend, wish(person, likeness=likeness)).latents
        for person, likeness in ((0, 0.3), (0, 0.9), (1, 0.9))
    ]
    for i, picture in enumerate(pictures):
        assert all(difference(picture, other) > 1e-3 for other in pictures[:i])


def test_eight_people_together_come_out_as_alone(backend: FaceIdBackend) -> None:
    requests = [wish(person, seed=person, likeness=0.2 + 0.1 * person) for person in range(8)]
    for request, together in zip(requests, walk(backend, requests), strict=True):
        assert difference(together.latents, one(backend, request).latents) < BATCH_TOLERANCE


def test_rows_that_differ_in_everything_come_out_as_alone(backend: FaceIdBackend) -> None:
    requests = [
        wish(0, photos=1, seed=1),
        wish(1, photos=4, seed=2, prompt="on a sunny beach at noon", num_inference_steps=7),
        wish(None, seed=3, guidance_scale=2.0, num_inference_steps=3),
        wish(2, photos=2, seed=4, guidance_scale=1.0, num_inference_steps=6),
        wish(3, seed=5, guidance_interval=(0.2, 0.6), num_inference_steps=8),
    ]
    for request, together in zip(requests, walk(backend, requests, ahead=1), strict=True):
        assert difference(together.latents, one(backend, request).latents) < BATCH_TOLERANCE


def test_swapping_one_rows_person_moves_that_row_and_no_other(backend: FaceIdBackend) -> None:
    def drawn(middle: int) -> list[Tensor]:
        requests = [wish(0, seed=1), wish(middle, seed=2), wish(2, seed=3)]
        return [state.latents for state in walk(backend, requests)]

    before, after = drawn(5), drawn(6)
    assert torch.equal(before[0], after[0]) and torch.equal(before[2], after[2])
    assert difference(before[1], after[1]) > 1e-3


def test_a_row_that_met_another_persons_tokens_is_refused(sdxl: FaceIdBackend) -> None:
    mine, yours = sdxl.prepare(wish(0)), sdxl.prepare(wish(1))
    for part in ("identity", "text"):
        mixed = replace(mine, **{part: getattr(yours, part)})
        with pytest.raises(AssertionError, match=f"the {part} of another request"):
            sdxl.denoise_step([mixed, yours])


def test_a_row_without_its_partner_is_refused(sdxl: FaceIdBackend) -> None:
    state = sdxl.prepare(wish(0))
    assert state.identity is not None
    cut = replace(state.identity, keys=state.identity.keys[:1], values=state.identity.values[:1])
    with pytest.raises(AssertionError, match="2 rows of latents met 1 rows of identity"):
        sdxl.denoise_step([replace(state, identity=cut)])


def tensors_within(root: object) -> dict[int, Tensor]:
    """Every tensor that can be reached from an object, by where its numbers lie."""
    found: dict[int, Tensor] = {}
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type | str | bytes | int | float):
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor) and thing.is_mkldnn:
            found[id(thing)] = thing.to_dense()  # packed weights do not say where they lie
        elif isinstance(thing, Tensor):
            found[thing.data_ptr()] = thing
        elif isinstance(thing, dict):
            waiting += thing.values()
        elif isinstance(thing, list | tuple | set | frozenset):
            waiting += thing
        elif hasattr(thing, "__dict__"):
            waiting += vars(thing).values()
        if slots := getattr(type(thing), "__slots__", ()):
            waiting += [getattr(thing, name, None) for name in slots if isinstance(name, str)]
    return found


def test_nothing_of_a_person_stays_on_a_module(backend: FaceIdBackend) -> None:
    one(backend, wish(None))  # what is asked may be kept; who is drawn may not
    before = {place: tensor.clone() for place, tensor in tensors_within(backend).items()}
    state = one(backend, wish(0, photos=3))
    after = tensors_within(backend)
    assert len(before) > 100 and after.keys() == before.keys()
    assert all(torch.equal(tensor, before[place]) for place, tensor in after.items())
    assert not set(tensors_within(state)) & set(after)


def test_prompt_and_person_are_projected_once_and_not_at_every_step(
    sdxl: FaceIdBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    for part, owner in (("_text", sdxl._text), ("_person", sdxl._person)):
        kept = type(owner)(owner.keys, owner.values)

        class Counting:
            def __init__(self, part: str, kept: Any) -> None:
                self.part, self.kept = part, kept

            def project(self, *arguments: Any) -> Any:
                counted.append(self.part)
                return self.kept.project(*arguments)

        monkeypatch.setattr(sdxl, part, Counting(part, kept))
    one(sdxl, wish(0))
    assert counted == ["_text", "_person"]


def test_a_person_encoded_before_is_drawn_as_one_encoded_now(
    backend: FaceIdBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = one(backend, wish(0, photos=3)).latents
    crops = wish(0, photos=3).crops
    assert isinstance(backend, PersonEncoder) and crops is not None
    person = backend.encode_person(crops)
    monkeypatch.setattr(backend, "_embed_crops", None)
    state: RowState = backend.prepare(wish(0, photos=3), person)
    while state.step < state.num_steps:
        (state,) = backend.denoise_step([state])
    assert isinstance(state, FaceIdState) and torch.equal(state.latents, now)
    with pytest.raises(TypeError, match="str as person"):
        backend.prepare(wish(0), "somebody")


def test_a_prompt_is_encoded_once_for_all_who_ask_the_same(
    backend: FaceIdBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    encode = backend._encode
    monkeypatch.setattr(backend, "_encode", lambda prompt: asked.append(prompt) or encode(prompt))
    for person in (0, 1):
        backend.prepare(wish(person, prompt="as nobody asked before"))
    assert asked == ["as nobody asked before"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_draw_nearly_the_same_picture(
    folders: Any, dtype: torch.dtype
) -> None:
    whole, folder = folders("sdxl_faceid", True)
    half = type(whole).load(folder, embed_crops=embed_crops, dtype=dtype)
    state = one(half, wish(0))
    assert half.is_finite(state) and state.latents.dtype == torch.float32
    # bfloat16 keeps three decimal digits; the random UNet carries what it loses through all steps.
    assert difference(state.latents, one(whole, wish(0)).latents) < 0.1
    assert half.decode(state).shape == (*half.info.image_size, 3)
    assert half.prepare(wish(0)).batch_key != whole.prepare(wish(0)).batch_key


def test_clip_sees_what_its_own_processor_would_show_it() -> None:
    from transformers import CLIPImageProcessorPil

    crops = double_crops(0, 2)
    squares = [arcface_square(crop, 32) for crop in crops]
    processor = CLIPImageProcessorPil(size=32, crop_size=32)
    expected = processor(squares, return_tensors="pt").pixel_values
    assert torch.allclose(clip_pixels(crops, 32), expected, atol=1e-5)


def test_the_square_shown_to_clip_is_the_one_arcface_crops() -> None:
    """Eyes and nose of an aligned crop, against ArcFace's template; a hundredth of the side off."""
    arcface = ARCFACE_TEMPLATE[:3] / ARCFACE_SIDE
    fitted = similarity_transform(arcface, TEMPLATE)
    corners = np.array([[0.0, 0.0], [1.0, 1.0]]) @ fitted[:, :2].T + fitted[:, 2]
    assert np.abs(corners.ravel() - ARCFACE_SQUARE).max() < 0.01


def test_all_transformer_blocks_share_one_compiled_graph(tmp_path: Path) -> None:
    backend = load_tiny("sdxl_faceid", tmp_path)
    plain = one(backend, wish(0)).latents
    graphs: list[Any] = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    backend._unet.compile_repeated_blocks(backend=counting)
    assert difference(one(backend, wish(0)).latents, plain) < BATCH_TOLERANCE
    assert len(graphs) == 1


def test_no_text_matrices_are_left_in_the_unet_to_be_multiplied(backend: FaceIdBackend) -> None:
    names = {name for name, _ in backend._unet.named_modules()}
    assert not any("attn2.to_k" in name or "attn2.to_v" in name for name in names)
    assert any("attn1.to_k" in name for name in names)


def test_outside_the_guidance_interval_the_second_row_is_not_computed(
    sdxl: FaceIdBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    forward = sdxl._unet.forward
    monkeypatch.setattr(
        sdxl._unet,
        "forward",
        lambda sample, *a, **k: rows.append(len(sample)) or forward(sample, *a, **k),
    )
    state: RowState = sdxl.prepare(wish(guidance_interval=(0.25, 0.75), num_inference_steps=8))
    promised = []
    while state.step < state.num_steps:
        promised.append(sdxl.forward_rows(state))
        (state,) = sdxl.denoise_step([state])
    assert rows == promised == [1, 1, 2, 2, 2, 2, 1, 1]


def test_an_empty_guidance_interval_draws_what_scale_one_draws(sdxl: FaceIdBackend) -> None:
    resting = one(sdxl, wish(guidance_interval=(0.0, 0.0)))
    assert torch.equal(resting.latents, one(sdxl, wish(guidance_scale=1.0)).latents)
    assert sdxl.forward_rows(sdxl.prepare(wish(guidance_interval=(0.0, 0.0)))) == 1


def test_a_person_without_a_face_encoder_is_refused_with_what_to_install(
    folders: Any,
) -> None:
    _, folder = folders("sdxl_faceid", False)
    backend = type(folders("sdxl_faceid", False)[0]).load(folder)
    with pytest.raises(MissingWeights, match="IMAGINE_INSIGHTFACE_PACK"):
        backend.prepare(wish(0))
    assert one(backend, wish(None)).step == STEPS


@pytest.mark.parametrize("vectors", [np.zeros((2, 128)), np.full((2, 512), np.nan)])
def test_vectors_of_another_recogniser_are_refused(
    sdxl: FaceIdBackend, monkeypatch: pytest.MonkeyPatch, vectors: Any
) -> None:
    monkeypatch.setattr(sdxl, "_embed_crops", lambda crops: vectors)
    with pytest.raises(InvalidInput, match="wants 512 numbers"):
        sdxl.prepare(wish(0))


def test_pictures_of_another_size_are_drawn_where_it_fits_the_latents(folders: Any) -> None:
    whole, folder = folders("sdxl_faceid", False)
    large = type(whole).load(folder, embed_crops=embed_crops, image_size=48)
    assert large.decode(one(large, wish(0))).shape == (48, 48, 3)
    assert large.prepare(wish(0)).batch_key != whole.prepare(wish(0)).batch_key
    with pytest.raises(InvalidInput, match="multiple of 2"):
        type(whole).load(folder, image_size=33)


def test_a_memory_plan_is_followed_as_far_as_this_machine_can(folders: Any) -> None:
    whole, folder = folders("sdxl_faceid", True)
    made = make_plan("sdxl_faceid", device_bytes=80 * GB)
    plan = replace(made, size=32, dtype="bfloat16", storage="bfloat16")
    told: list[str] = []
    planned = type(whole).load(folder, embed_crops=embed_crops, plan=plan, announce=told.append)
    half = type(whole).load(folder, embed_crops=embed_crops, dtype=torch.bfloat16)
    assert torch.equal(one(planned, wish(0)).latents, one(half, wish(0)).latents)
    assert told and "no CUDA device" in told[0]
    with pytest.raises(InvalidInput, match="sd15_faceid"):
        type(whole).load(folder, plan=replace(plan, backend="sd15_faceid"))


def test_likeness_must_be_judged_by_another_recogniser(backend: FaceIdBackend) -> None:
    assert backend.info.conditioned_by == "insightface"
    assert "NonCommercial" in backend.info.licence


def test_a_state_shows_nothing_of_the_person_in_its_repr(sdxl: FaceIdBackend) -> None:
    assert "tensor" not in repr(sdxl.prepare(wish(0)))
