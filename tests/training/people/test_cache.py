from pathlib import Path

import numpy as np
import pytest

from training.people.cache import (
    LOOK,
    PhotoCache,
    PhotoRecord,
    choose_scenes,
    mark_look,
    write_shard,
)
from training.people.person import sample_person
from training.people.scene import facts
from training.people.splits import is_held_out


def record(seed: int, photo: int) -> PhotoRecord:
    marks = [[1.0, 2.0]] * 5
    return PhotoRecord(
        seed, photo, photo, "selfie", "me", {"sex": "man"}, marks, [0, 0, 9, 9], True
    )


def images(count: int, value: int) -> np.ndarray:
    return np.full((count, 8, 8, 3), value, np.uint8)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_shard(tmp_path, "shard-0000000", images(2, 7), [record(0, 0), record(0, 1)])
    cache = PhotoCache(tmp_path)
    assert len(cache) == 2
    assert cache.records[1] == record(0, 1)
    assert (cache.image(1) == 7).all()
    assert cache.people() == {0: [0, 1]}


def test_a_reader_finds_new_shards_and_keeps_its_numbers(tmp_path: Path) -> None:
    write_shard(tmp_path, "shard-0000064", images(1, 1), [record(64, 0)])
    cache = PhotoCache(tmp_path)
    write_shard(tmp_path, "shard-0000000", images(1, 2), [record(0, 0)])
    assert cache.refresh() == 1
    assert [cache.records[i].person_seed for i in range(2)] == [64, 0]
    assert cache.refresh() == 0


def test_a_shard_without_its_lines_is_not_yet_there(tmp_path: Path) -> None:
    np.save(tmp_path / "shard-0000000.npy", images(1, 1))
    assert len(PhotoCache(tmp_path)) == 0


def test_images_and_records_must_be_as_many(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give one record per image"):
        write_shard(tmp_path, "shard-0000000", images(2, 1), [record(0, 0)])


def test_three_of_eight_photos_are_selfies_and_none_is_held_out() -> None:
    for seed in range(40):
        scenes = choose_scenes(seed, 8)
        assert [scene.kind for scene in scenes] == ["selfie"] * 3 + ["scene"] * 5
        assert not any(is_held_out(facts(sample_person(seed), scene)) for scene in scenes)


def test_photos_of_another_look_are_not_mixed_in(tmp_path: Path) -> None:
    mark_look(tmp_path / "new")
    mark_look(tmp_path / "new")  # going on with the same look is fine
    assert (tmp_path / "new" / "look.txt").read_text().strip() == LOOK
    write_shard(
        tmp_path / "old", "shard-0000000", images(1, 1), [record(0, 0)]
    )  # made before looks had marks
    with pytest.raises(ValueError, match="have look 1 of the renderer"):
        mark_look(tmp_path / "old")
