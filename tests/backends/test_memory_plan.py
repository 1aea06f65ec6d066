from __future__ import annotations

import sys
import types
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    Flux2Transformer2DModel,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen3Config,
)

from imagine.backends import memory_plan
from imagine.backends.base import sizes_by_blocks
from imagine.backends.cuda_graphs import ShapedGraphs
from imagine.backends.embedded import EmbeddedBackend
from imagine.backends.flux2_klein import Flux2KleinBackend, PromptEncoder
from imagine.backends.memory_plan import (
    FAMILIES,
    GB,
    RESERVE_BYTES,
    SLACK,
    Offload,
    Stage,
    apply_plan,
    faster_attention,
    make_plan,
    parse_memory,
    rows_that_fit,
)
from imagine.core import Request
from imagine.errors import InvalidInput, UnknownName
from imagine.settings import CANDIDATES, Settings
from tests.backends.live_tensors import peak_bytes, peak_bytes_of_architecture
from tests.backends.tiny_flux2_klein import save_tiny, tiny_pipeline
from tests.doubles import double_crops

# The model of activations is one number per latent pixel or token; what it leaves out (time
# embeddings, positions) came to less than this share in every case measured.
ACTIVATION_TOLERANCE = 0.02


def sd15():
    return UNet2DConditionModel(
        block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8
    )


def sdxl():
    return UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 640, 1280),
        cross_attention_dim=2048,
        attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def klein():
    return Flux2Transformer2DModel(
        num_layers=5,
        num_single_layers=20,
        num_attention_heads=24,
        joint_attention_dim=7680,
        guidance_embeds=False,
    )


def autoencoder():
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    )


def clip(width, layers, heads, kind):
    return kind(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            projection_dim=width,
        )
    )


def qwen3():
    return PromptEncoder(
        Qwen3Config(
            hidden_size=2560,
            num_hidden_layers=36,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            intermediate_size=9728,
            vocab_size=151936,
        )
    )


@pytest.mark.parametrize(
    ("family", "part", "build"),
    [
        ("sd15_faceid", "unet", sd15),
        ("sd15_faceid", "text_encoder", lambda: clip(768, 12, 12, CLIPTextModel)),
        ("sd15_faceid", "vae", autoencoder),
        ("sdxl_faceid", "unet", sdxl),
        ("sdxl_faceid", "text_encoder_2", lambda: clip(1280, 32, 20, CLIPTextModelWithProjection)),
        ("flux2_klein", "transformer", klein),
        ("flux2_klein", "text_encoder", qwen3),
        ("flux2_klein", "vae", AutoencoderKLFlux2),
    ],
)
def test_parameters_are_those_of_the_true_architecture(family, part, build):
    with torch.device("meta"):
        model = build()
    planned = next(p for p in FAMILIES[family].parts if p.name == part)
    assert planned.parameters == sum(p.numel() for p in model.parameters())
    assert planned.largest_layer == max(
        sum(p.numel() for p in layer.parameters(recurse=False)) for layer in model.modules()
    )


def run_unet(rows, size, width, tall=None):
    def run(unet):
        conditions = {"text_embeds": torch.zeros(rows, 1280), "time_ids": torch.zeros(rows, 6)}
        return unet(
            torch.zeros(rows, 4, (tall or size) // 8, size // 8),
            torch.zeros(rows),
            torch.zeros(rows, 77, width),
            added_cond_kwargs=conditions if width == 2048 else None,
        )

    return run


def run_klein(rows, size):
    def run(transformer):
        tokens = memory_plan._klein_tokens(size) - 512
        return transformer(
            hidden_states=torch.zeros(rows, tokens, 128),
            encoder_hidden_states=torch.zeros(rows, 512, 7680),
            timestep=torch.zeros(rows),
            img_ids=torch.zeros(tokens, 4),
            txt_ids=torch.zeros(512, 4),
        )

    return run


@pytest.mark.parametrize(
    ("family", "build", "run", "rows", "size"),
    [
        ("sd15_faceid", sd15, run_unet(2, 512, 768), 2, 512),
        ("sdxl_faceid", sdxl, run_unet(1, 1024, 2048), 1, 1024),
        ("flux2_klein", klein, run_klein(2, 1024), 2, 1024),
    ],
)
def test_a_row_takes_what_the_true_architecture_takes(family, build, run, rows, size):
    measured = peak_bytes_of_architecture(build, run) / rows
    assert FAMILIES[family].row_bytes(size) == pytest.approx(measured, rel=ACTIVATION_TOLERANCE)


@pytest.mark.parametrize(
    ("family", "build", "block", "width"),
    [("sd15_faceid", sd15, 64, 768), ("sdxl_faceid", sdxl, 64, 2048)],
)
def test_a_row_of_another_shape_fits_where_the_square_fits(family, build, block, width):
    side = FAMILIES[family].sizes[1]
    tall, wide = sizes_by_blocks(side, block)["9:16"]
    measured = peak_bytes_of_architecture(build, run_unet(1, wide, width, tall))
    assert measured <= FAMILIES[family].row_bytes(side) * (1 + ACTIVATION_TOLERANCE)


def test_no_shape_of_klein_has_more_tokens_than_the_square_its_plan_is_made_for():
    sizes = sizes_by_blocks(1024, 16).values()
    assert max(height // 16 * (width // 16) for height, width in sizes) <= (1024 // 16) ** 2


@pytest.mark.parametrize(
    ("family", "build", "channels"),
    [("sd15_faceid", autoencoder, 4), ("flux2_klein", AutoencoderKLFlux2, 32)],
)
def test_decoding_takes_what_the_true_autoencoder_takes(family, build, channels):
    measured = peak_bytes_of_architecture(
        build, lambda vae: vae.decode(torch.zeros(1, channels, 64, 64))
    )
    planned = FAMILIES[family].decode_bytes_per_pixel * 512 * 512
    assert planned == pytest.approx(measured, rel=ACTIVATION_TOLERANCE)


@pytest.fixture(scope="module")
def embedded():
    if not (Settings().assets_directory / "models" / "imagine-mini").is_dir():
        pytest.skip("the weights of embedded are not in assets/models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGINE_CANDIDATES", str(CANDIDATES))
        return EmbeddedBackend.load()


def wishes(count, photos=4):
    return [
        Request("in a forest", double_crops(person, photos), person, 3, 2.0, 0.7)
        for person in range(count)
    ]


@pytest.mark.parametrize("people", [1, 3])
def test_the_embedded_models_real_steps_take_what_the_plan_says(embedded, people):
    states = [embedded.prepare(wish) for wish in wishes(people)]
    rows = sum(embedded.forward_rows(state) for state in states)
    measured = peak_bytes(lambda: embedded.denoise_step(states))
    plan = make_plan("embedded", 2 * GB)
    assert measured / rows == pytest.approx(plan.bytes_per_forward_row / SLACK, rel=0.05)


def test_the_embedded_models_real_weights_and_pictures_take_what_the_plan_says(embedded):
    models = (
        embedded._denoiser,
        embedded._adapter,
        embedded._text_encoder,
        embedded._upsampler,
        embedded._locator,
        embedded._refiner,
        embedded._chooser._recogniser,
        embedded._chooser._attributes,
    )
    weights = sum(p.numel() * p.element_size() for m in models for p in m.parameters())
    (wish,) = wishes(1, photos=memory_plan.MAX_PHOTOS)
    plan = make_plan("embedded", 2 * GB)
    assert plan.weight_bytes == weights
    assert plan.bytes_per_picture == pytest.approx(stored(embedded.prepare(wish), set()), rel=0.05)


def test_the_embedded_models_real_upsampler_takes_what_the_plan_says(embedded):
    (wish,) = wishes(1, photos=memory_plan.MAX_PHOTOS)
    state = embedded.prepare(wish)
    while state.step < state.num_steps:  # one candidate is left
        (state,) = embedded.denoise_step([state])
    measured = peak_bytes(lambda: embedded.decode(state))
    plan = make_plan("embedded", 2 * GB)
    assert measured == pytest.approx(plan.decode_bytes / SLACK, rel=0.05)


def test_a_klein_picture_keeps_no_more_than_planned(tmp_path):
    backend = Flux2KleinBackend.load(save_tiny(tmp_path))
    (wish,) = wishes(1, photos=memory_plan.MAX_PHOTOS)
    state = backend.prepare(wish)
    # The tiny model's widths in place of klein's; its prompts and latents are float32.
    tokens = 2 * len(state.latents) + len(state.references)
    expected = state.prompt_embeds.nbytes + tokens * state.latents.shape[1] * 4
    own = replace(state, empty_embeds=None)  # of no prompt, and shared by all pictures
    assert stored(own, set()) == pytest.approx(expected, rel=0.01)
    planned = FAMILIES["flux2_klein"].picture_bytes(1024)
    assert planned >= 512 * 7680 * 2 + (2 * 4096 + memory_plan.MAX_PHOTOS * 256) * 128 * 4


def stored(value, seen):
    """Bytes of all tensors inside a state."""
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        is_new = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return storage.nbytes() if is_new else 0
    if is_dataclass(value):
        return sum(stored(getattr(value, entry.name), seen) for entry in fields(value))
    if isinstance(value, list | tuple):
        return sum(stored(item, seen) for item in value)
    return 0


@pytest.mark.parametrize(
    ("backend", "memory", "offload", "tiling"),
    [
        ("sd15_faceid", "4GB", Offload.NONE, False),
        ("sd15_faceid", "2GB", Offload.GROUP, False),
        ("sdxl_faceid", "24GB", Offload.NONE, False),
        ("sdxl_faceid", "12GB", Offload.NONE, True),
        ("sdxl_faceid", "8GB", Offload.MODEL, False),
        ("sdxl_faceid", "4GB", Offload.GROUP, True),
        ("flux2_klein", "24GB", Offload.NONE, False),
        ("flux2_klein", "12GB", Offload.MODEL, False),
        ("flux2_klein", "6GB", Offload.GROUP, False),
        ("embedded", "1.2GB", Offload.NONE, False),
    ],
)
def test_less_memory_means_more_waiting_in_the_machine(backend, memory, offload, tiling):
    plan = make_plan(backend, parse_memory(memory))
    assert (plan.offload, plan.vae_tiling) == (offload, tiling)
    assert rows_that_fit(plan) >= 1


@pytest.mark.parametrize("backend", FAMILIES)
@pytest.mark.parametrize("memory", [3, 6, 12, 24, 80])
def test_what_is_planned_never_exceeds_the_device(backend, memory):
    plan = make_plan(backend, memory * GB)
    rows = rows_that_fit(plan)
    step = plan.weight_bytes + rows * (plan.bytes_per_forward_row + plan.bytes_per_picture)
    assert RESERVE_BYTES + step <= plan.device_bytes
    if plan.offload is Offload.NONE:
        assert RESERVE_BYTES + plan.weight_bytes + plan.decode_bytes <= plan.device_bytes


def test_more_memory_never_means_fewer_rows_of_one_way_of_loading():
    plans = [make_plan("sdxl_faceid", memory * GB) for memory in range(12, 40, 4)]
    rows = [rows_that_fit(plan) for plan in plans]
    assert rows == sorted(rows) and rows[0] < rows[-1]


def test_smaller_pictures_leave_room_for_more_rows():
    large, small = (make_plan("sdxl_faceid", 12 * GB, size=size) for size in (1024, 512))
    assert rows_that_fit(small) > 2 * rows_that_fit(large)


def test_float8_is_used_only_when_allowed_and_then_said():
    strict = make_plan("flux2_klein", 13 * GB)
    rounded = make_plan("flux2_klein", 13 * GB, allow_float8=True)
    assert (strict.offload, strict.rounds) == (Offload.MODEL, False)
    assert (rounded.offload, rounded.rounds) == (Offload.NONE, True)
    assert "rounds them" in rounded.in_words() and "rounds" not in strict.in_words()


def test_the_first_acceptable_dtype_is_taken():
    assert make_plan("sdxl_faceid", 24 * GB, dtypes=["bfloat16", "float16"]).dtype == "bfloat16"


def test_sdxl_pictures_are_decoded_in_float32_where_float16_would_overflow():
    half, brain = (make_plan("sdxl_faceid", 80 * GB, dtypes=[d]) for d in ("float16", "bfloat16"))
    assert half.decode_bytes == pytest.approx(2 * brain.decode_bytes)


def test_the_plan_reads_as_plain_words():
    words = make_plan("sdxl_faceid", parse_memory("12GB")).in_words()
    assert words.startswith("sdxl_faceid at 1024x1024 pixels on 12.0 GB:")
    for expected in ("float16", "all weights stay on the device", "in tiles of 512", "13 rows"):
        assert expected in words


def test_what_does_not_fit_says_what_would():
    with pytest.raises(InvalidInput, match=r"does not fit in 1\.0 GB.*needs .* GB.*embedded"):
        make_plan("flux2_klein", GB)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"backend": "nonsense"}, UnknownName, "Known: embedded"),
        ({"size": 1000}, InvalidInput, "multiple of 16"),
        ({"size": 1_000_000}, InvalidInput, "256 to 2048"),
        ({"size": -16}, InvalidInput, "256 to 2048"),
        ({"dtypes": ["int3"]}, UnknownName, "Known: bfloat16"),
    ],
)
def test_absurd_wishes_are_refused_by_name_and_limit(given, error, words):
    with pytest.raises(error, match=words):
        make_plan(**{"backend": "flux2_klein", "device_bytes": 24 * GB, **given})


@pytest.mark.parametrize(
    ("text", "count"),
    [("12GB", 12 * GB), ("8 GiB", 8 * 2**30), ("1.5g", 1_500_000_000), ("512MB", 512_000_000)],
)
def test_memory_is_read_as_people_write_it(text, count):
    assert parse_memory(text) == count


@pytest.mark.parametrize("text", ["", "12", "GB", "0GB", "-4GB", "12 apples"])
def test_memory_that_is_no_memory_is_refused(text):
    with pytest.raises(InvalidInput, match="12GB"):
        parse_memory(text)


def tiny_parts():
    stock = tiny_pipeline()
    return {"transformer": stock.transformer, "vae": stock.vae, "text_encoder": stock.text_encoder}


@pytest.mark.parametrize(
    ("memory", "names"),
    [
        (24, "channels last, attention kernel, compile, CUDA graphs"),
        (12, "channels last, attention kernel, compile, CUDA graphs, offload"),
    ],
)
def test_without_a_gpu_what_needs_one_is_left_out_with_one_announced_reason(memory, names):
    said = []
    plan = make_plan("flux2_klein", memory * GB)
    measures = apply_plan(tiny_parts(), plan, "cpu", announce=said.append)
    assert not any(measure.is_applied for measure in measures)
    assert said == [f"Left out: {names}; cpu is no CUDA device."]


def test_a_plan_with_tiles_decodes_in_tiles_of_its_size():
    parts = tiny_parts()
    plan = make_plan("flux2_klein", 24 * GB)
    measures = apply_plan(parts, replace(plan, vae_tiling=True), "cpu", announce=lambda s: None)
    assert measures[0].is_applied and parts["vae"].use_tiling
    assert (parts["vae"].tile_sample_min_size, parts["vae"].tile_latent_min_size) == (512, 64)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("klein"))


def drawn(backend):
    (wish,) = wishes(1)
    state = backend.prepare(wish)
    while state.step < state.num_steps:
        (state,) = backend.denoise_step([state])
    return backend.decode(state)


@pytest.mark.parametrize("offload", [Offload.MODEL, Offload.GROUP])
def test_weights_that_wait_elsewhere_draw_the_same_picture_bit_for_bit(tiny_folder, offload):
    plan = replace(make_plan("flux2_klein", 24 * GB), offload=offload)
    usual, moved = Flux2KleinBackend.load(tiny_folder), Flux2KleinBackend.load(tiny_folder)
    parts = {
        "transformer": moved._transformer,
        "vae": moved._vae,
        "text_encoder": moved._text_encoder,
    }
    # The hooks are the same on a CPU, where waiting and working memory are one.
    assert memory_plan._place(parts, plan, "cpu").is_applied
    assert np.array_equal(drawn(usual), drawn(moved))


def test_a_load_follows_the_plan(tiny_folder):
    said = []
    plan = replace(make_plan("flux2_klein", 24 * GB, size=256), storage="float8")
    backend = Flux2KleinBackend.load(tiny_folder, plan=plan, announce=said.append)
    kinds = {p.dtype for p in backend._transformer.parameters()}
    assert torch.float8_e4m3fn in kinds and backend.info.image_size == (256, 256)
    assert backend._dtype == torch.bfloat16
    assert drawn(backend).std() > 5
    assert any("no CUDA device" in sentence for sentence in said)


def test_on_cuda_each_measure_is_taken_with_its_reason(monkeypatch):
    done = []
    parts = tiny_parts()
    for name, module in parts.items():
        monkeypatch.setattr(module, "to", lambda *a, name=name, **k: done.append((name, a, k)))
    monkeypatch.setattr(
        parts["transformer"], "compile_repeated_blocks", lambda: done.append("compiled")
    )
    monkeypatch.setattr(
        parts["transformer"], "set_attention_backend", lambda name: done.append(name)
    )
    monkeypatch.setattr(
        memory_plan, "faster_attention", lambda shape, device, dtype: ("xformers", str(shape))
    )
    measures = apply_plan(parts, make_plan("flux2_klein", 24 * GB), "cuda", announce=lambda s: None)
    taken = {m.name: m.why for m in measures if m.is_applied}
    assert taken["channels last"] == "vae"
    assert taken["attention kernel"] == "xformers: (1, 5888, 2, 16)"
    assert taken["compile"] == "transformer"
    assert "compiled" in done and "xformers" in done
    assert ("vae", (), {"memory_format": torch.channels_last}) in done
    assert {entry[0] for entry in done if entry[1:] == (("cuda",), {})} == set(parts)


def test_moving_weights_and_compiling_exclude_each_other():
    plan = replace(make_plan("flux2_klein", 24 * GB), offload=Offload.GROUP)
    measure = memory_plan._compile(tiny_parts(), plan)
    assert not measure.is_applied and "hooks" in measure.why


def test_small_pictures_are_drawn_from_recordings_and_large_ones_are_not():
    parts = tiny_parts()
    steps = {"transformer": parts["transformer"]}
    small, large = (make_plan("flux2_klein", 24 * GB, size=size) for size in (512, 1024))
    measure = memory_plan._record_graphs(steps, large)
    assert not measure.is_applied and not measure.is_wanted
    assert memory_plan._record_graphs(steps, small).is_applied
    assert isinstance(steps["transformer"].forward, ShapedGraphs)


def test_weights_that_move_are_not_recorded():
    plan = replace(make_plan("flux2_klein", 24 * GB, size=512), offload=Offload.GROUP)
    measure = memory_plan._record_graphs({}, plan)
    assert not measure.is_applied and "hooks" in measure.why


def test_without_xformers_torchs_attention_is_taken(monkeypatch):
    monkeypatch.setattr(memory_plan.importlib.util, "find_spec", lambda name: None)
    chosen, why = faster_attention((1, 8, 2, 4), "cpu", torch.float32)
    assert chosen == "native" and "not installed" in why


@pytest.mark.parametrize(("xformers_seconds", "chosen"), [(0.9, "xformers"), (0.99, "native")])
def test_xformers_is_taken_only_where_it_was_measured_to_help(
    monkeypatch, xformers_seconds, chosen
):
    ops = types.ModuleType("xformers.ops")
    ops.memory_efficient_attention = lambda q, k, v: "xformers"
    monkeypatch.setitem(sys.modules, "xformers", types.ModuleType("xformers"))
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    monkeypatch.setattr(memory_plan.importlib.util, "find_spec", lambda name: object())

    def seconds(call, device):
        return xformers_seconds if call() == "xformers" else 1.0

    assert faster_attention((1, 8, 2, 4), "cpu", torch.float32, seconds)[0] == chosen


@pytest.mark.gpu
def test_a_plan_can_be_carried_out_on_cuda(tiny_folder):
    usual = drawn(Flux2KleinBackend.load(tiny_folder, "cuda", dtype=torch.bfloat16, image_size=256))
    for offload in Offload:
        plan = replace(make_plan("flux2_klein", 24 * GB, size=256), offload=offload)
        planned = drawn(Flux2KleinBackend.load(tiny_folder, "cuda", plan=plan))
        assert np.abs(usual.astype(int) - planned.astype(int)).mean() < 3


def test_every_part_has_a_stage_and_every_family_a_source():
    for family in FAMILIES.values():
        assert {part.stage for part in family.parts} >= {Stage.STEP, Stage.PREPARE}
        assert family.source
