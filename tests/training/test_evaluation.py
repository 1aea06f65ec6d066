import json

import numpy as np
import pytest

from imagine.backends.embedded import save_model
from imagine.backends.fake import FakeBackend
from imagine.errors import InvalidInput
from imagine.models.denoiser import Denoiser
from imagine.models.identity_adapter import IdentityAdapter
from training import evaluation
from training.evaluation import PersonResult, distance_table, evaluate, split_pairs, summarise
from training.evaluation_report import contact_sheet, markdown, write_report
from training.held_out import WISHES, HeldOutPerson, JudgedPicture
from training.people.assets import assets_path
from training.trainer import MODEL_SIZES

GREY = np.full((128, 128, 3), 127, np.uint8)
SIGHT = {
    name: dict.fromkeys(classes, 1.0) for wish in WISHES[:2] for name, classes in wish.wants.items()
}


def unit(*numbers):
    return np.array(numbers, np.float32)


def person(index, count):
    embedding = np.eye(count, dtype=np.float32)[index]
    return HeldOutPerson(
        seed=100_000 + index,
        groups={"skin_tone": "dark", "age_band": "old", "sex": "man" if index % 2 else "woman"},
        selfie=GREY,
        crops=np.stack([GREY] * 3),
        embeddings=np.stack([embedding] * 3),
        embedding=embedding,
        target=embedding,
        tried=5,
    )


def results(shown, count=4):
    """People whose two pictures have the embedding `shown(person)`, and true ones their own."""
    made = []
    for index in range(count):
        who = person(index, count)
        generated = [JudgedPicture(GREY, shown(who))] * 2
        true = [JudgedPicture(GREY, who.embedding)] * 2
        made.append(PersonResult(who, generated, true, [True] * 2, [SIGHT] * 2, [SIGHT] * 2))
    return made


def test_perfect_pictures_reach_one_and_their_floor_stays_in_the_middle():
    rows = summarise(results(lambda who: who.embedding), WISHES[:2], {})["rows"]
    assert rows["generated"]["auc"] == rows["generated"]["tar_at_far_1"] == 1.0
    assert rows["floor"]["auc"] == 0.5
    assert rows["generated"]["prompt"]["place"] == 0.5


def test_pictures_without_faces_reach_nothing():
    row = summarise(results(lambda who: None), WISHES[:2], {})["rows"]["generated"]
    assert (row["face_found"], row["prompt"]["mean"]) == (0.0, 0.0)
    assert not row["auc"] > 0.0


def test_half_of_the_faces_lost_halves_the_score():
    lost = results(lambda who: None if who.seed % 2 else who.embedding)
    row = summarise(lost, WISHES[:2], {})["rows"]["generated"]
    assert (row["auc"], row["auc_where_found"], row["tar_at_far_1"]) == (0.5, 1.0, 0.5)


def test_neither_the_person_nor_the_one_claimed_is_an_impostor():
    table = distance_table(results(lambda who: who.embedding, count=3), "generated")
    genuine, impostor = split_pairs(table, np.array([1, 2, 0]))
    assert genuine.shape == (3, 2)
    assert len(impostor) == 3 * 2 * 1
    assert genuine.min() > 1.0  # none is the distance 0 to the person the picture shows


def test_groups_are_counted_apart():
    groups = summarise(results(lambda who: who.embedding), WISHES[:2], {})["groups"]
    assert {name: row["people"] for name, row in groups.items()} == {
        "skin_tone: dark": 4, "age_band: old": 4, "sex: man": 2, "sex: woman": 2,
    }  # fmt: skip


class FacesOnlyInRedraws:
    """Judges like a workshop; finds no face in what was drawn first for the second wish."""

    def __init__(self):
        self.asked = []

    def judge(self, images):
        self.asked.append(len(images))
        found = unit(1, 0)
        first = len(self.asked) == 1
        return [JudgedPicture(i, None if first and n == 1 else found) for n, i in enumerate(images)]


def test_a_picture_without_a_face_is_drawn_again_as_in_the_product():
    workshop = FacesOnlyInRedraws()
    settings = {"num_inference_steps": 2, "guidance_scale": 1.0, "likeness": 0.7}
    pictures, at_once = evaluation.draw_until_found(
        FakeBackend(), person(0, 2).crops, 7, WISHES[:3], settings, workshop.judge
    )
    assert workshop.asked == [3, 1]
    assert at_once == [True, False, True]
    assert all(picture.embedding is not None for picture in pictures)


def test_the_report_has_figures_words_and_pictures(tmp_path):
    made = results(lambda who: who.embedding)
    summary = summarise(made, WISHES[:2], {"place": 0.8})
    write_report(tmp_path, summary, made, WISHES[:2])
    assert json.loads((tmp_path / "evaluation.json").read_text())["rows"]["floor"]["auc"] == 0.5
    assert "| ceiling | 1.000 | - | 1.000 |" in (tmp_path / "evaluation.md").read_text()
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_a_figure_that_cannot_be_had_is_a_dash():
    summary = summarise(results(lambda who: None), WISHES[:2], {})
    assert "nan" not in markdown(summary)


def test_the_sheet_shows_made_pictures_above_true_ones():
    sheet = contact_sheet(results(lambda who: who.embedding), WISHES[:2])
    assert sheet.shape == (60 + 4 * 2 * 256, 3 * 256, 3)


@pytest.mark.parametrize(("people", "prompts"), [(1, 8), (100, 0), (100, 99)])
def test_too_few_people_or_unknown_prompts_are_refused(tmp_path, people, prompts):
    with pytest.raises(InvalidInput, match="is"):
        evaluate("fake", tmp_path, people=people, prompts=prompts)


def _tiny_model(folder):
    denoiser, adapter = MODEL_SIZES["tiny"]
    save_model(folder, Denoiser(**denoiser), IdentityAdapter(**adapter))
    return folder


def test_two_people_go_all_the_way_to_a_report(tmp_path, monkeypatch):
    backend, calls = ("embedded", []) if assets_path().is_dir() else ("fake", [])
    if backend == "fake":  # no people assets: made-up people take the place of rendered ones
        made = results(lambda who: who.embedding, count=2)
        prepared = [(result.person, list(result.true)) for result in made]
        monkeypatch.setattr(evaluation, "_prepare", lambda seed, wishes: prepared[seed - 100_000])
    status = evaluate(
        backend, tmp_path / "out", people=2, prompts=2, steps=2, workers=1,
        model=_tiny_model(tmp_path / "model") if backend == "embedded" else None,
        cache=tmp_path / "cache", progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (status, calls) == (0, [(1, 2), (2, 2)])
    assert summary["people"] == 2
    assert summary["rows"]["ceiling"]["face_found"] > 0.4
