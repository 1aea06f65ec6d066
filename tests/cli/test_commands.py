"""The smaller commands: help, check, demo, doctor, models list, eval."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagine.cli import demo, evaluate, inventory
from imagine.cli.inventory import Item
from imagine.errors import MissingWeights
from tests.cli.conftest import Run

COMMANDS = [
    "generate",
    "check",
    "replay",
    "demo",
    "eval",
    "verify",
    "doctor",
    "models list",
    "models plan",
    "models doctor",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_its_exit_statuses(run: Run, command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.status == 0
    assert "Usage: imagine-me " + command in " ".join(done.out.split())


def test_the_front_help_documents_the_exit_statuses(run: Run) -> None:
    text = " ".join(run("--help").out.split())
    assert "4 prompt blocked by policy" in text and "130 cancelled" in text


def test_help_imports_nothing_heavy() -> None:
    probe = (
        "import sys; from imagine.cli import main; main(['--help'])\n"
        "heavy = {'torch', 'diffusers', 'dlib', 'numpy'} & set(sys.modules)\n"
        "print('heavy:', heavy)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: set()\n")


def test_the_version_is_told(run: Run) -> None:
    assert run("--version").out.startswith("imagine-me 0.")


def test_check_says_what_it_thinks_of_each_photo(run: Run, selfie: Path) -> None:
    done = run("check", selfie)
    assert done.status == 0
    assert done.out.startswith("astronaut.png: keep")


def test_check_reports_a_bad_photo_beside_a_good_one_and_ends_with_3(
    run: Run, selfie: Path
) -> None:
    done = run("check", selfie, "missing.jpg", "--json")
    good, bad = json.loads(done.out)
    assert done.status == 3
    assert good["verdict"].startswith("keep")
    assert bad["verdict"] == "refuse" and bad["codes"] == ["unreadable"]


def test_demo_makes_a_sheet_and_four_pictures(run: Run, selfie: Path, tmp_path: Path) -> None:
    done = run("demo", "--backend", "fake", "--photo", selfie)
    assert done.status == 0
    names = sorted(path.name for path in (tmp_path / "demo-output").iterdir())
    assert names == [*(f"picture-{i}.png" for i in range(1, 5)), "sheet.png"]
    assert str(tmp_path / "demo-output" / "sheet.png") in done.out


def test_the_demo_can_be_run_again(run: Run, selfie: Path) -> None:
    statuses = [run("demo", "--backend", "fake", "-p", selfie).status for _ in range(2)]
    assert statuses == [0, 0]


def test_the_sample_person_is_shown_by_four_selfies(tmp_path: Path) -> None:
    (tmp_path / "people" / demo.SAMPLE).mkdir(parents=True)
    for index in range(5):
        (tmp_path / "people" / demo.SAMPLE / f"selfie_{index}.jpg").touch()
    chosen = demo.sample_selfies(tmp_path)
    assert [path.name for path in chosen] == [f"selfie_{index}.jpg" for index in range(4)]


def test_three_selfies_are_too_few_for_a_sample_person(tmp_path: Path) -> None:
    (tmp_path / "people" / demo.SAMPLE).mkdir(parents=True)
    for index in range(3):
        (tmp_path / "people" / demo.SAMPLE / f"selfie_{index}.jpg").touch()
    with pytest.raises(MissingWeights, match="4 selfies"):
        demo.sample_selfies(tmp_path)


def test_without_sample_people_the_demo_says_what_to_do(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGINE_ASSETS_DIR", str(tmp_path))
    done = run("demo", "--backend", "fake")
    assert done.status == 5 and "--photo" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_long_prompt_is_wrapped_on_the_sheet() -> None:
    from imagine.cli.sheet import PICTURE, Entry, draw_sheet
    from imagine.core import LikenessVerdict

    square = np.zeros((64, 64, 3), dtype=np.uint8)
    verdict = LikenessVerdict(True, 0.4, 0.9, None, "This looks like you.")
    short, long = (
        draw_sheet([square], [Entry(square, prompt, verdict)], "Selfies", "test").shape
        for prompt in ("short", "a very long wish " * 6)
    )
    assert long[0] > short[0] and long[1] == short[1]
    assert long[1] >= PICTURE


@pytest.fixture
def two_models(monkeypatch: pytest.MonkeyPatch) -> list[Item]:
    items = [
        Item("backend", "embedded", False, "Weights are missing. Restore them."),
        Item("face detector", "dlib", True, "ready", "CC0-1.0"),
        Item("face encoder", "dlib", True, "ready", "CC0-1.0"),
    ]
    monkeypatch.setattr(inventory, "inventory", lambda settings: items)
    return items


def test_models_list_shows_what_can_be_used_and_its_licence(
    run: Run, two_models: list[Item]
) -> None:
    listed = json.loads(run("models", "list", "--json").out)
    assert [(m["name"], m["usable"]) for m in listed] == [
        ("embedded", False),
        ("dlib", True),
        ("dlib", True),
    ]
    assert "CC0-1.0" in run("models", "list").out


def test_doctor_names_what_is_missing_and_ends_with_5(run: Run, two_models: list[Item]) -> None:
    done = run("doctor")
    assert done.status == 5
    assert "missing  backend embedded: Weights are missing. Restore them." in done.out
    assert json.loads(run("doctor", "--json").out)["ready"] is False


def test_the_inventory_opens_what_needs_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from imagine.backends import BACKENDS

    item = inventory._backend(BACKENDS.get, "fake", "cpu")
    assert item.usable and item.revision == "fake-1" and "128x128" in item.detail


def test_eval_hands_over_to_the_training_room_and_shows_its_table(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def stand_in(out: Path, **words: object) -> int:
        given.update(words)
        out.mkdir()
        (out / "evaluation.md").write_text("| AUC |")
        return 0

    room = types.ModuleType("training.evaluation")
    room.evaluate = stand_in  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "training.evaluation", room)
    done = run("eval", "fake", "--people", 3, "-o", "report")
    assert done.status == 0 and "| AUC |" in done.out
    assert given == {"backend_name": "fake", "people": 3, "assets": None}


@pytest.mark.parametrize(("module", "advice"), [("training", "Clone it"), ("anny", "[train]")])
def test_eval_without_its_packages_names_the_command(
    run: Run, monkeypatch: pytest.MonkeyPatch, module: str, advice: str
) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(evaluate, "import_module", absent)
    done = run("eval", "fake")
    assert done.status == 5 and advice in done.err


def test_eval_of_an_unknown_backend_lists_the_known(run: Run) -> None:
    done = run("eval", "nonsense")
    assert done.status == 2 and "Known: embedded" in done.err and "fake" in done.err


def test_the_sheet_is_a_readable_picture(run: Run, selfie: Path, tmp_path: Path) -> None:
    run("demo", "--backend", "fake", "-p", selfie)
    with Image.open(tmp_path / "demo-output" / "sheet.png") as sheet:
        assert sheet.width > 4 * 256 and sheet.height > 500
