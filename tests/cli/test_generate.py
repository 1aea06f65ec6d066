from __future__ import annotations

import _thread
import errno
import json
import os
import signal
import struct
import time
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from zlib import compress, crc32

import numpy as np
import pytest
from PIL import Image

from imagine import read_recipe
from imagine.backends.fake import FakeBackend
from tests.cli.conftest import Run

PROMPT = "smiling, in a forest at dawn"
FAKE = ("--backend", "fake")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_photo_and_a_prompt_make_a_marked_picture(run: Run, selfie: Path, tmp_path: Path) -> None:
    done = run("generate", PROMPT, "-p", selfie, *FAKE, "--seed", 7, "-o", "me.png")
    assert done.status == 0
    assert done.out.startswith("me.png: This")
    assert read_recipe(tmp_path / "me.png").prompt == PROMPT


def test_json_says_everything_and_progress_stays_off_stdout(run: Run, selfie: Path) -> None:
    done = run("generate", PROMPT, "-p", selfie, *FAKE, "-n", 2, "--seed", 7, "--json")
    facts = json.loads(done.out)
    assert [image["seed"] for image in facts["images"]] == [7, 8]
    assert set(facts["images"][0]["likeness"]) >= {"words", "score", "distance", "copy_score"}
    assert facts["images"][0]["path"] == "outputs/imagine-7.png"
    assert facts["photos"][0]["verdict"].startswith("keep")


def test_progress_shows_on_stderr(run: Run, selfie: Path) -> None:
    done = run("generate", PROMPT, "-p", selfie, *FAKE, "-n", 2, "--steps", 3)
    assert "6/6" in done.err and "Drawing" in done.err
    assert "Drawing" not in done.out


def test_pictures_go_into_a_new_folder(run: Run, selfie: Path, tmp_path: Path) -> None:
    done = run("generate", PROMPT, "-p", selfie, *FAKE, "-n", 2, "--seed", 7, "-o", "a/b")
    assert done.status == 0
    assert files(tmp_path) == ["a/b/imagine-7.png", "a/b/imagine-8.png"]


def test_best_of_says_why(run: Run, selfie: Path) -> None:
    done = run("generate", PROMPT, "-p", selfie, *FAKE, "--best-of", 2)
    assert "Best of 2: likeness" in done.out


def test_a_picture_has_the_shape_that_was_asked_for(run: Run, selfie: Path, tmp_path: Path) -> None:
    words = (*FAKE, "--aspect-ratio", "3:4", "-o", "me.png", "--json")
    done = run("generate", PROMPT, "-p", selfie, *words)
    assert json.loads(done.out)["images"][0]["recipe"]["aspect_ratio"] == "3:4"
    with Image.open(tmp_path / "me.png") as picture:
        assert picture.size == (108, 148)


def test_an_existing_picture_is_kept_without_force(run: Run, selfie: Path, tmp_path: Path) -> None:
    (tmp_path / "me.png").write_text("mine")
    command = ("generate", PROMPT, "-p", selfie, *FAKE, "-o", "me.png")
    refused = run(*command)
    assert refused.status == 6 and "exists already" in refused.err
    assert (tmp_path / "me.png").read_text() == "mine"
    assert run(*command, "--force").status == 0


def test_replay_makes_the_same_picture_again_with_the_same_marks(
    run: Run, selfie: Path, tmp_path: Path
) -> None:
    run("generate", PROMPT, "-p", selfie, *FAKE, "-n", 2, "--seed", 7, "-o", "a")
    done = run("replay", "a/imagine-8.png", "-p", selfie, "-o", "again.png")
    assert done.status == 0
    again, first = tmp_path / "again.png", tmp_path / "a/imagine-8.png"
    with Image.open(again) as one, Image.open(first) as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))
    assert read_recipe(again) == read_recipe(first)


def test_replaying_a_picture_without_a_recipe_is_refused(run: Run, selfie: Path) -> None:
    done = run("replay", selfie, "-p", selfie)
    assert (done.status, done.out) == (2, "")
    assert "carries no recipe" in done.err


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("-p", "missing.jpg"), 2, "no file 'missing.jpg'"),
        ((), 2, "No photo was given"),
        (("-p", "{selfie}", "-n", "0"), 2, "-n is 0"),
        (("-p", "{selfie}", "-n", "99"), 2, "-n is 99"),
        (("-p", "{selfie}", "--likeness", "2"), 2, "likeness is 2"),
        (("-p", "{selfie}", "--steps", "0"), 2, "num_inference_steps is 0"),
        (("-p", "{selfie}", "--seed", "-5"), 2, "seed is -5"),
        (("-p", "{selfie}", "--aspect-ratio", "wide"), 2, "aspect_ratio is 'wide'"),
        (("-p", "{selfie}", "--aspect-ratio", "7:5"), 2, "Choose one of: 1:1 (128x128), 3:4"),
        (("-p", "{selfie}", "--backend", "nonsense"), 2, "no backend called 'nonsense'"),
        (("-p", "{selfie}", "--encoder", "nonsense"), 2, "no face encoder called 'nonsense'"),
        (("-p", "{selfie}", "--device", "toaster"), 2, "device 'toaster' cannot be used"),
        (("-p", "{selfie}", "--face", "left"), 2, "--face 'left' is not understood"),
        (("-p", "{selfie}", "--face", "2=0"), 2, "--face '2=0' is not understood"),
        (("-p", "{selfie}", "-n", "2", "-o", "me.png"), 2, "name a folder"),
        (
            (
                "-p",
                "{text}",
            ),
            2,
            "text file",
        ),
        (
            (
                "-p",
                "{landscape}",
            ),
            3,
            "face",
        ),
        (("-p", "{selfie}", "-o", "missing/me.png"), 6, "no folder 'missing'"),
        (("-p", "{selfie}", "-o", "{text}"), 6, "exists already"),
        (("-p", "{selfie}", "-o", "{text}/folder"), 6, "cannot be made"),
        (("-p", "{selfie}", "--weights", "nowhere"), 5, "nowhere"),
    ],
)
def test_every_mistake_ends_in_one_sentence_a_status_and_no_file(
    run: Run,
    selfie: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    words: tuple[str, ...],
    status: int,
    sentence: str,
) -> None:
    places = {"selfie": selfie, **mistakes(tmp_path_factory.mktemp("mistakes"))}
    done = run("generate", PROMPT, "--backend", "fake", *(w.format(**places) for w in words))
    assert done.status == status
    assert sentence in done.err and "Traceback" not in done.err
    assert files(tmp_path) == [] and done.out == ""


def mistakes(folder: Path) -> dict[str, Path]:
    """Files that are no selfie: a text, a landscape, six people, 17 kB of 144 megapixels."""
    text, landscape, bomb = folder / "text.jpg", folder / "landscape.png", folder / "bomb.png"
    text.write_text("Dear diary, this is no photo.")
    hills = np.linspace(0, 255, 240 * 320 * 3).reshape(240, 320, 3).astype(np.uint8)
    Image.fromarray(hills).save(landscape)
    bomb.write_bytes(black_png(12_000))
    group = Path(distribution("insightface").locate_file("insightface/data/images/t1.jpg"))
    return {"text": text, "landscape": landscape, "bomb": bomb, "group": group}


def black_png(side: int) -> bytes:
    """A one-bit PNG written by hand, so that this test never holds its pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc32(kind + body))

    rows = compress(bytes((side // 8 + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("prompt", "status", "sentence"),
    [("", 2, "empty"), ("a" * 10_000, 2, "10000 characters"), ("naked", 4, "refused")],
)
def test_a_bad_prompt_is_refused_before_photos_are_read(
    run: Run, prompt: str, status: int, sentence: str
) -> None:
    done = run("generate", prompt, "-p", "missing.jpg", *FAKE)
    assert done.status == status
    assert sentence in done.err and "missing.jpg" not in done.err


def test_without_a_prompt_the_usage_is_shown(run: Run) -> None:
    done = run("generate")
    assert done.status == 2 and "prompt" in done.err


@pytest.mark.parametrize("name", ["me.png", "folder"])
def test_a_full_disk_leaves_no_half_written_file(
    run: Run, selfie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    done = run("generate", PROMPT, "-p", selfie, *FAKE, "-o", name)
    assert done.status == 6
    assert "No space left on device" in done.err
    assert files(tmp_path) == []


def test_corrupt_weights_are_told_apart(
    run: Run, selfie: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    for part in ("denoiser", "identity_adapter", "scheduler"):
        (folder / part).mkdir()
        (folder / part / "config.json").write_text("{")
    done = run("generate", PROMPT, "-p", selfie, "--weights", folder)
    assert done.status == 5
    assert "cannot be loaded" in done.err and "Traceback" not in done.err
    assert files(tmp_path) == []


def interrupting(error: BaseException) -> Any:
    def step(*arguments: object) -> None:
        raise error

    return step


def test_ctrl_c_ends_with_130_and_no_file(
    run: Run, selfie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = FakeBackend.denoise_step

    def step(self: FakeBackend, states: Any) -> Any:
        _thread.interrupt_main()
        time.sleep(0.05)
        return plain(self, states)

    monkeypatch.setattr(FakeBackend, "denoise_step", step)
    # A shell that starts tests in the background has them ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = run("generate", PROMPT, "-p", selfie, *FAKE, "--steps", 100)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.status == 130 and "Cancelled" in done.err
    assert files(tmp_path) == []


def test_an_unexpected_error_is_one_sentence_and_debug_shows_where(
    run: Run, selfie: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagine.pipeline.judge_likeness", interrupting(RuntimeError("odd.")))
    command = ("generate", PROMPT, "-p", selfie, *FAKE)
    plain, debug = run(*command), run(*command, "--debug")
    assert plain.status == debug.status == 1
    assert "Unexpected RuntimeError: odd. Add --debug" in plain.err
    assert "Traceback" not in plain.err and "Traceback" in debug.err


def test_a_changed_trait_reaches_the_recipe(run: Run, selfie: Path, tmp_path: Path) -> None:
    changed = ("--change", "glasses=none", "--change", "expression=sad")
    done = run("generate", PROMPT, "-p", selfie, *FAKE, *changed, "-o", "me.png")
    assert done.status == 0
    assert read_recipe(tmp_path / "me.png").traits == "glasses=none; expression=sad"


@pytest.mark.parametrize("wrong", [("--change", "glasses"), ("--keep", "nose")])
def test_a_trait_there_is_not_is_refused_with_a_sentence(
    run: Run, selfie: Path, wrong: tuple[str, str]
) -> None:
    done = run("generate", PROMPT, "-p", selfie, *FAKE, *wrong)
    assert done.status == 2 and "trait" in done.err


def test_two_people_make_one_picture_with_a_verdict_each(
    run: Run, selfie: Path, tmp_path: Path
) -> None:
    done = run(
        "generate", PROMPT, "-p", selfie, "--beside", selfie, *FAKE, "--seed", 7, "-o", "us.png"
    )
    assert done.status == 0
    assert "on the right" in done.out
    assert read_recipe(tmp_path / "us.png").beside_fingerprint
    again = run("replay", "us.png", "-p", selfie, "--beside", selfie)
    assert again.status == 0
