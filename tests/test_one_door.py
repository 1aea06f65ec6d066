"""No picture leaves unmarked: not by Python, not by the command line, not by a line of code.

The routes are walked in `tests/service/test_one_door.py`. The page has no encoder of its own but
the one for thumbnails of the person's photos, which the scan below keeps true.
"""

from __future__ import annotations

import ast
import base64
import inspect
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import imagine
from imagine import Identity, Imagine, Settings
from imagine.cli import app
from imagine.identity import FACE_DETECTORS, FACE_ENCODERS
from imagine.provenance import MARKS_FOLDER, Provenance, Verifier, mark_image, open_verifier
from imagine.provenance.watermark_report import drawing
from tests.doubles import double_crops, double_identity
from tests.one_door import pictures_in, unmarked_in

PACKAGE = Path(imagine.__file__).parent
# Where picture files are written, and why each may. Anything new goes through `MarkedImage`.
MAY_ENCODE = {
    ("provenance/mark.py", "to_bytes"): "the door itself",
    ("provenance/watermark_report.py", "_again"): "test pictures, compressed and opened again",
    ("service/enrolment.py", "*"): "a photo the person gave, kept for them",
    ("service/wire.py", "*"): "a photo the person gives, on its way to the service",
    ("service/oversight.py", "*"): "a withheld picture, sealed in the vault for reviewers",
    ("ui/tray.py", "*"): "a small copy of a photo the person gave",
}
# What of the Python door hands out pixels or files; each is looked at below.
HANDS_OUT = {
    "GeneratedImage.array",
    "GeneratedImage.save",
    "GeneratedImage.to_bytes",
}
# The machine room: loaded models, for the service. What they draw has passed no check.
_TELLING = {
    *("bytes", "ImageArray", "NDArray", "Path"),
    *("Backend", "Tools", "Engine", "FaceDetector", "MarkedImage"),
}
MACHINE_ROOM = {"Imagine.backend", "Imagine.faces", "Imagine.tools"}


def encoders() -> Iterator[tuple[str, str]]:
    """File and function of every call that could write a picture file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        for function, call in _calls(ast.parse(path.read_text("utf-8"))):
            if _encodes(call):
                yield name, function


def _calls(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.Call]]:
    for node in ast.iter_child_nodes(tree):
        inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        if isinstance(node, ast.Call):
            yield inside, node
        yield from _calls(node, inside)


def _encodes(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name in ("imencode", "imwrite", "imsave"):
        return True
    kinds = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "format")]
    return name == "save" and any(
        (isinstance(kind, ast.Constant) and kind.value in ("PNG", "JPEG", "WEBP", "GIF", "TIFF"))
        or (isinstance(kind, ast.Name) and kind.id in ("kind", "format", "suffix"))
        for kind in kinds
    )


def test_picture_files_are_written_nowhere_but_at_the_door() -> None:
    strange = {
        place
        for place in encoders()
        if place not in MAY_ENCODE and (place[0], "*") not in MAY_ENCODE
    }
    assert not strange, f"{strange} write picture files: hand out `MarkedImage` instead"


def test_the_search_for_writers_finds_them() -> None:
    found = set(encoders())
    assert ("provenance/mark.py", "to_bytes") in found
    for line in ("x.save(b, 'PNG')", "x.save(b, format='JPEG')", "cv2.imencode('.png', x)"):
        assert any(_encodes(call) for _, call in _calls(ast.parse(line)))


def test_nothing_public_hands_out_pixels_or_files_but_what_is_looked_at_here() -> None:
    found = set()
    for name in imagine.__all__:
        thing = getattr(imagine, name)
        if not inspect.isclass(thing):
            continue
        for member, value in vars(thing).items():
            function = value.fget if isinstance(value, property) else value
            if member.startswith("_") or not inspect.isfunction(function):
                continue
            told = set(re.findall(r"\w+", str(function.__annotations__.get("return", ""))))
            if told & _TELLING:
                found.add(f"{name}.{member}")
    allowed = HANDS_OUT | MACHINE_ROOM | {"Imagine.mark"}
    settings = {one for one in found if one.startswith("Settings.")}
    assert found - settings <= allowed, f"{found - settings - allowed} are new: look at them here"
    assert found >= HANDS_OUT


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry, kind in ((FACE_DETECTORS, "Detector"), (FACE_ENCODERS, "Encoder")):
        monkeypatch.setitem(registry._targets, "double", f"tests.doubles:Double{kind}")


@pytest.fixture
def verifier() -> Verifier:
    return open_verifier(Settings().data_directory / MARKS_FOLDER)


@pytest.fixture
def me() -> Identity:
    return double_identity()


def test_everything_the_python_door_gives_leads_to_an_audit_entry(
    doubles: None, me: Identity, tmp_path: Path
) -> None:
    im = Imagine("fake", detector="double", encoder="double")
    image = im.generate("in a forest", identity=me, seed=7).images[0]
    verifier = open_verifier(Settings().data_directory / MARKS_FOLDER)
    assert verifier.watermark is not None
    found = verifier.watermark.read(image.array)
    assert found is not None and found.record == image.recipe.record > 0
    for suffix in (".png", ".jpg", ".webp"):
        for note in (None, "open", "none"):
            report = verifier.verify(image.to_bytes(suffix, note))
            assert (report.verdict, report.watermark_found) == (Provenance.UNTOUCHED, True)
        saved = image.save(tmp_path / f"me{suffix}")
        assert verifier.verify(saved).record == image.recipe.record
    again = im.replay(image.recipe, me)
    assert verifier.verify(again.to_bytes()).record == image.recipe.record


def test_every_file_a_command_writes_is_marked(
    doubles: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photo = tmp_path / "given.jpg"
    Image.fromarray(double_crops()[0]).resize((512, 512)).save(photo)
    fake = ["--backend", "fake", "--detector", "double", "--encoder", "double"]
    run = CliRunner()
    for ending in ("png", "jpg", "webp"):
        words = ["generate", "in a forest", "-p", str(photo), *fake, "-o", f"me.{ending}"]
        assert run.invoke(app, words).exit_code == 0
    words = ["replay", "me.png", "-p", str(photo), *fake[2:], "-o", "again.png"]
    assert run.invoke(app, words).exit_code == 0
    verifier = open_verifier(Settings().data_directory / MARKS_FOLDER)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != photo]
    assert len(written) == 4
    for path in written:
        assert unmarked_in(path.read_bytes(), path.name) == []
        assert verifier.verify(path).verdict is Provenance.UNTOUCHED


def test_the_watch_sees_an_unmarked_picture_wherever_it_hides() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(buffer, "PNG")
    plain, marked = buffer.getvalue(), mark_image(drawing(1, 64), None).to_bytes(".webp")
    hidden = [
        plain,
        b'{"data": [{"b64_json": "' + base64.b64encode(plain * 4) + b'"}]}',
        b"event: preview\ndata: " + base64.b64encode(plain * 4) + b"\n\n",
    ]
    assert all(unmarked_in(body) for body in hidden)
    assert not unmarked_in(marked) and not unmarked_in(base64.b64encode(marked))
    assert len(list(pictures_in(base64.b64encode(marked)))) == 1
