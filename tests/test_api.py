from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagine import (
    Cancelled,
    Identity,
    Imagine,
    InvalidInput,
    LicenceRefused,
    Progress,
    PromptBlocked,
    Settings,
    UnknownName,
    read_recipe,
)
from imagine.api import IdentityHandle
from imagine.backends.fake import FakeBackend
from imagine.core import CROP_SIZE, Face, FloatArray, ImageArray
from imagine.engine import Limits
from imagine.identity import FACE_DETECTORS, FACE_ENCODERS
from imagine.identity.align import TEMPLATE
from imagine.identity.insightface_faces import embed_crops
from imagine.provenance import MARKS_FOLDER, mark_image, open_verifier
from imagine.provenance.verify import Provenance
from tests.doubles import DoubleEncoder, double_crops, double_identity

PROMPT = "in a forest"


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry, kind in ((FACE_DETECTORS, "Detector"), (FACE_ENCODERS, "Encoder")):
        monkeypatch.setitem(registry._targets, "double", f"tests.doubles:Double{kind}")


@pytest.fixture
def im(doubles: None) -> Imagine:
    """Without audit entry and watermark, which differ from picture to picture."""
    return Imagine("fake", detector="double", encoder="double", marking=mark_image)  # type: ignore[arg-type]


@pytest.fixture
def marking_im(doubles: None) -> Imagine:
    return Imagine("fake", detector="double", encoder="double")


@pytest.fixture
def me() -> Identity:
    return double_identity()


def test_a_result_carries_all_that_was_used(im: Imagine, me: Identity) -> None:
    result = im.generate(PROMPT, identity=me, n=3, seed=7)
    assert [image.seed for image in result.images] == [7, 8, 9]
    image = result.images[0]
    assert (image.num_inference_steps, image.model_revision) == (4, "fake-1")
    assert image.likeness.face_found and image.likeness.words.startswith("This")
    assert result.seed == 7 and result.backend.name == "fake"
    assert image.recipe.licence == "permissive: all weights allow commercial use"


def test_results_are_frozen(im: Imagine, me: Identity) -> None:
    result = im.generate(PROMPT, identity=me, seed=7)
    with pytest.raises(FrozenInstanceError):
        result.images[0].seed = 3  # type: ignore[misc]


def test_a_saved_picture_carries_its_recipe(im: Imagine, me: Identity, tmp_path: Path) -> None:
    image = im.generate(PROMPT, identity=me, seed=7).images[0]
    assert read_recipe(image.save(tmp_path / "me.png")) == image.recipe


def test_reading_pixels_gives_a_copy(im: Imagine, me: Identity) -> None:
    image = im.generate(PROMPT, identity=me, seed=7).images[0]
    image.array[:] = 0
    assert image.array.any()


def test_without_a_seed_one_is_drawn_and_told(im: Imagine, me: Identity) -> None:
    first, second = (im.generate(PROMPT, identity=me).seed for _ in range(2))
    assert first != second
    assert 0 <= first < 2**63


def test_the_same_seed_gives_the_same_picture(im: Imagine, me: Identity) -> None:
    one, two = (im.generate(PROMPT, identity=me, seed=7).images[0].to_bytes() for _ in range(2))
    assert one == two


def test_a_picture_does_not_depend_on_how_many_were_asked_for(im: Imagine, me: Identity) -> None:
    among_four = im.generate(PROMPT, identity=me, seed=7, n=4).images[2]
    alone = im.generate(PROMPT, identity=me, seed=9).images[0]
    assert np.array_equal(among_four.array, alone.array)


def test_replay_draws_the_same_picture_bit_for_bit(
    im: Imagine, me: Identity, tmp_path: Path
) -> None:
    image = im.generate(PROMPT, identity=me, n=3, seed=2**63 - 2, likeness=0.4).images[2]
    path = image.save(tmp_path / "me.png")
    assert np.array_equal(im.replay(image.recipe, me).array, image.array)
    assert im.replay(path, me).to_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"identity_fingerprint": "ff" * 32}, "other selfies"),
        ({"backend": "embedded"}, "backend 'embedded'"),
        ({"model_revision": "older"}, "weights older"),
        ({"num_inference_steps": 10**9}, "num_inference_steps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"prompt": "naked"}, "refused"),
    ],
)
def test_a_recipe_that_cannot_give_the_same_picture_is_refused(
    im: Imagine, me: Identity, change: dict[str, Any], sentence: str
) -> None:
    recipe = im.generate(PROMPT, identity=me, seed=7).images[0].recipe
    with pytest.raises((InvalidInput, PromptBlocked), match=sentence):
        im.replay(replace(recipe, **change), me)


def test_a_picture_with_guidance_for_a_while_can_be_made_again(im: Imagine, me: Identity) -> None:
    image = im.generate(PROMPT, identity=me, seed=7, guidance_interval=(0.0, 0.5)).images[0]
    assert (image.recipe.guidance_from, image.recipe.guidance_until) == (0.0, 0.5)
    assert np.array_equal(im.replay(image.recipe, me).array, image.array)
    with pytest.raises(InvalidInput, match=r"guidance_interval is 0\.6 to 0\.2"):
        im.generate(PROMPT, identity=me, guidance_interval=(0.6, 0.2))


def test_a_picture_of_another_shape_is_made_again_in_that_shape(
    im: Imagine, me: Identity, tmp_path: Path
) -> None:
    for aspect_ratio, (height, width) in im.info.sizes.items():
        image = im.generate(PROMPT, identity=me, seed=7, aspect_ratio=aspect_ratio).images[0]
        assert image.array.shape == (height, width, 3)
        path = image.save(tmp_path / "me.png")
        assert read_recipe(path).aspect_ratio == aspect_ratio
        assert np.array_equal(im.replay(path, me).array, image.array)


def test_a_recipe_from_before_there_were_shapes_gives_the_same_square(
    im: Imagine, me: Identity, tmp_path: Path
) -> None:
    image = im.generate(PROMPT, identity=me, seed=7).images[0]
    old = asdict(image.recipe)
    del old["aspect_ratio"]
    (tmp_path / "recipe.json").write_text(json.dumps(old))
    again = im.replay(tmp_path / "recipe.json", me)
    assert np.array_equal(again.array, image.array) and again.recipe == image.recipe


@pytest.mark.parametrize(
    ("aspect_ratio", "sentence"),
    [
        ("21:9", r"'21:9'.*does not draw\. Choose one of: 1:1 \(128x128\), 3:4 \("),
        ("wide", "'wide'; it must be width to height, such as '3:4'"),
    ],
)
def test_a_shape_that_is_not_offered_is_refused_with_the_list(
    im: Imagine, me: Identity, aspect_ratio: str, sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        im.generate(PROMPT, identity=me, aspect_ratio=aspect_ratio)
    recipe = im.generate(PROMPT, identity=me, seed=7).images[0].recipe
    with pytest.raises(InvalidInput, match=sentence):
        im.replay(replace(recipe, aspect_ratio=aspect_ratio), me)


def test_two_people_have_one_shape_only(im: Imagine, me: Identity) -> None:
    with pytest.raises(InvalidInput, match=r"one shape only, 256x128 pixels\. Leave it"):
        im.generate(PROMPT, identity=me, beside=double_identity(1), aspect_ratio="16:9")


def test_marked_pictures_of_every_shape_can_be_verified(
    marking_im: Imagine, me: Identity, tmp_path: Path
) -> None:
    for aspect_ratio in marking_im.info.sizes:
        image = marking_im.generate(PROMPT, identity=me, aspect_ratio=aspect_ratio).images[0]
        verifier = open_verifier(marking_im.settings.data_directory / MARKS_FOLDER)
        report = verifier.verify(image.save(tmp_path / "me.jpg"))
        assert report.verdict is Provenance.UNTOUCHED and report.watermark_found
        assert report.record == image.recipe.record


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("n", 0),
        ("n", 17),
        ("n", 1.5),
        ("n", True),
        ("seed", -1),
        ("seed", 2**63),
        ("likeness", -0.1),
        ("likeness", 1.1),
        ("likeness", float("nan")),
        ("num_inference_steps", 0),
        ("num_inference_steps", 201),
        ("guidance_scale", 0.5),
        ("guidance_scale", float("inf")),
        ("best_of", 0),
    ],
)
def test_an_argument_out_of_range_is_named_with_its_value(
    im: Imagine, me: Identity, argument: str, value: float
) -> None:
    with pytest.raises(InvalidInput, match=f"{argument} is {value!r}"):
        im.generate(PROMPT, identity=me, **{argument: value})  # type: ignore[arg-type]


def test_bad_prompts_are_refused(im: Imagine, me: Identity) -> None:
    for prompt in ("", "a" * 10_000):
        with pytest.raises(InvalidInput, match="prompt"):
            im.generate(prompt, identity=me)
    with pytest.raises(PromptBlocked):
        im.generate("naked", identity=me)


@pytest.mark.parametrize("kind", ["backend", "detector", "encoder"])
def test_an_unknown_name_is_refused_at_once_with_the_known_ones(kind: str) -> None:
    with pytest.raises(UnknownName, match=r"'nonsense'\. Known: "):
        Imagine(**{kind: "nonsense"})


def test_no_photo_and_too_many_photos_are_refused(im: Imagine) -> None:
    with pytest.raises(InvalidInput, match="No photo"):
        im.identity([])
    with pytest.raises(InvalidInput, match="6 photos"):
        im.identity(["a.jpg"] * 6)
    with pytest.raises(InvalidInput, match="list"):
        im.identity("a.jpg")


def test_an_identity_is_forgotten_when_its_block_ends(im: Imagine, me: Identity) -> None:
    with IdentityHandle(me) as person:
        im.generate(PROMPT, identity=person)
    assert not me.crops.any() and not me.embeddings.any() and not me.embedding.any()
    with pytest.raises(InvalidInput, match="forgotten"):
        im.generate(PROMPT, identity=me)


def test_an_identity_is_forgotten_even_when_drawing_fails(im: Imagine, me: Identity) -> None:
    with pytest.raises(PromptBlocked), IdentityHandle(me) as person:
        im.generate("naked", identity=person)
    assert not me.crops.any()


def test_a_handle_works_without_a_with_block(im: Imagine, me: Identity) -> None:
    handle = IdentityHandle(me)
    assert im.generate(PROMPT, identity=handle).images
    handle.forget()
    assert not me.crops.any()


def test_something_that_is_no_identity_is_refused(im: Imagine) -> None:
    with pytest.raises(InvalidInput, match="identity is a str"):
        im.generate(PROMPT, identity="me.jpg")  # type: ignore[arg-type]


def test_an_identity_of_another_recogniser_is_refused(im: Imagine, me: Identity) -> None:
    with pytest.raises(InvalidInput, match="recogniser 'other'"):
        im.generate(PROMPT, identity=replace(me, recogniser="other"))


def test_progress_is_told_after_every_step(im: Imagine, me: Identity) -> None:
    seen: list[Progress] = []
    im.generate(PROMPT, identity=me, n=2, num_inference_steps=3, on_progress=seen.append)
    assert [progress.step for progress in seen] == [1, 2, 3, 4, 5, 6]


def test_an_event_cancels(im: Imagine, me: Identity) -> None:
    stop = threading.Event()
    with pytest.raises(Cancelled):
        im.generate(PROMPT, identity=me, on_progress=lambda progress: stop.set(), cancel=stop)


def test_a_function_cancels_and_the_next_call_works(im: Imagine, me: Identity) -> None:
    with pytest.raises(Cancelled):
        im.generate(PROMPT, identity=me, cancel=lambda: True)
    assert im.generate(PROMPT, identity=me).images


def test_several_threads_get_each_their_own_person(im: Imagine) -> None:
    people = [double_identity(person) for person in range(6)]

    def draw(person: Identity) -> bytes:
        return im.generate(PROMPT, identity=person, seed=7, n=2).images[1].to_bytes()

    alone = [draw(person) for person in people]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(draw, people))
    assert together == alone
    assert len(set(alone)) == 6


def test_waiting_for_a_turn_can_be_cancelled(im: Imagine, me: Identity) -> None:
    gate = threading.Event()
    backend = im._engine().backend
    plain = backend.prepare
    backend.prepare = lambda request: gate.wait(10) and plain(request)  # type: ignore[method-assign]
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Cancelled):
        im.generate(PROMPT, identity=me, cancel=stop)
    gate.set()


def test_the_async_door_gives_the_same_pictures(im: Imagine, me: Identity) -> None:
    async def both() -> list[bytes]:
        calls = (im.agenerate(PROMPT, identity=me, seed=seed) for seed in (7, 8))
        return [result.images[0].to_bytes() for result in await asyncio.gather(*calls)]

    plain = [im.generate(PROMPT, identity=me, seed=s).images[0].to_bytes() for s in (7, 8)]
    assert asyncio.run(both()) == plain


def test_cancelling_the_task_stops_the_drawing(im: Imagine, me: Identity) -> None:
    steps: list[Progress] = []
    started = threading.Event()

    def slowly(progress: Progress) -> None:
        steps.append(progress)
        started.set()
        threading.Event().wait(0.02)

    async def give_up() -> None:
        drawing = im.agenerate(
            PROMPT, identity=me, n=16, num_inference_steps=200, on_progress=slowly
        )
        task = asyncio.create_task(drawing)
        await asyncio.to_thread(started.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    assert len(steps) < 100  # of 3200


def test_settings_limit_the_number_of_pictures(me: Identity, im: Imagine) -> None:
    im.settings = replace(Settings(), max_images=2)
    with pytest.raises(InvalidInput, match="1 to 2"):
        im.generate(PROMPT, identity=me, n=3)


def test_a_recogniser_that_draws_may_not_judge() -> None:
    im = Imagine("sdxl_faceid", encoder="insightface", licence="research")
    with pytest.raises(InvalidInput, match="cannot judge the likeness"):
        im._opened_backend()


def test_weights_that_may_not_be_sold_are_refused_before_anything_is_opened() -> None:
    with pytest.raises(LicenceRefused, match="IP-Adapter FaceID"):
        _ = Imagine("sdxl_faceid").info
    with pytest.raises(UnknownName, match="permissive, research"):
        Imagine(licence="whatever")


def test_crops_are_described_where_their_landmarks_are_known_to_be() -> None:
    seen: list[Face] = []

    class Watching(DoubleEncoder):
        def embed(self, image: ImageArray, face: Face) -> FloatArray:
            seen.append(face)
            return super().embed(image, face)

    vectors = embed_crops(double_crops(photos=3), Watching())
    assert len(vectors) == 3
    left, right, nose = seen[0].landmarks[:3] / CROP_SIZE
    np.testing.assert_allclose([left, right, nose], TEMPLATE, atol=0.04)


def test_on_a_gpu_a_big_backend_is_loaded_by_a_plan_and_the_engine_keeps_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: dict[str, Any] = {}

    class Planned(FakeBackend):
        @classmethod
        def load(
            cls, source: object = None, device: str = "cpu", *, plan: object = None
        ) -> Planned:
            loaded["plan"] = plan
            return cls(device)

    monkeypatch.setattr("imagine.api.BACKENDS.get", lambda name: Planned)
    monkeypatch.setattr("imagine.api.device_bytes", lambda device: 24 * 2**30)
    monkeypatch.setattr("imagine.api._check_device", lambda device: None)
    im = Imagine("flux2_klein", device="cuda")
    engine = im._engine()
    assert loaded["plan"].backend == "flux2_klein"
    assert engine._limits.max_forward_rows >= 1
    assert engine._limits != Limits()


def test_a_picture_that_leaves_carries_marks_that_lead_to_its_audit_entry(
    marking_im: Imagine, me: Identity, tmp_path: Path
) -> None:
    first, second = marking_im.generate(PROMPT, identity=me, seed=7, n=2).images
    assert 0 < first.recipe.record < second.recipe.record
    verifier = open_verifier(Settings().data_directory / MARKS_FOLDER)
    for suffix in (".png", ".jpg", ".webp"):
        report = verifier.verify(first.save(tmp_path / f"me{suffix}"))
        assert report.verdict is Provenance.UNTOUCHED
        assert report.record == first.recipe.record


def test_a_picture_made_again_has_the_pixels_and_the_entry_of_the_first_time(
    marking_im: Imagine, me: Identity, tmp_path: Path
) -> None:
    image = marking_im.generate(PROMPT, identity=me, seed=7).images[0]
    again = marking_im.replay(image.save(tmp_path / "me.png"), me)
    assert np.array_equal(again.array, image.array)
    assert again.recipe == image.recipe


def test_a_changed_trait_is_in_the_recipe_and_replays_bit_for_bit(
    im: Imagine, me: Identity, tmp_path: Path
) -> None:
    changed = {"glasses": "none", "hair_colour": "dark brown"}
    (image,) = im.generate(PROMPT, identity=me, seed=7, change=changed).images
    assert image.recipe.traits == "glasses=none; hair_colour=dark brown"
    again = im.replay(image.save(tmp_path / "me.png"), me)
    assert np.array_equal(again.array, image.array)
    assert again.recipe == image.recipe


@pytest.mark.parametrize(
    "asked", [{"keep": ["nose"]}, {"change": {"age": "9"}}, {"keep": "age"},
              {"keep": ["age"], "change": {"age": "old"}}]
)  # fmt: skip
def test_a_switch_there_is_not_is_refused_before_weights_are_opened(
    doubles: None, me: Identity, asked: dict[str, Any]
) -> None:
    im = Imagine("fake", detector="double", encoder="double", weights="/nowhere")
    with pytest.raises(InvalidInput, match=r"trait|keep"):
        im.generate(PROMPT, identity=me, **asked)


def test_two_people_replay_from_the_selfies_of_both(im: Imagine, me: Identity) -> None:
    other = double_identity(1)
    (image,) = im.generate(PROMPT, identity=me, beside=other, seed=7).images
    assert image.pair is not None and image.array.shape == (128, 256, 3)
    assert np.array_equal(im.replay(image.recipe, me, beside=other).array, image.array)
    for wrong in (None, double_identity(2)):
        with pytest.raises(InvalidInput, match="beside the person"):
            im.replay(image.recipe, me, beside=wrong)
