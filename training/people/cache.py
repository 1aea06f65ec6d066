"""Photos rendered ahead of training: append-only shards that can be read while they grow.

    python -m training.people.cache --out DIR --people 4000 --photos 8 --size 128
    python -m training.people.cache --out DIR --people 4000 --photos 4 --switched

A shard is `shard-SSSSSSS.npy` (photos, uint8, memory-mappable) and `shard-SSSSSSS.jsonl` (one
line a photo), where S is its first person's seed. The `.jsonl` is renamed into place last, so
a shard exists when its `.jsonl` does. Running the same command again goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.people.captions import write_caption
from training.people.person import sample_person
from training.people.scene import Scene, facts, sample_scene
from training.people.splits import is_held_out
from training.people.switched import switched_photos

LOOK = "3"  # of the renders; raised when photos no longer look like earlier ones
SHARD_PEOPLE = 64
SWITCHED_SUFFIX = "-switched"  # of the names of shards
SELFIES = 3  # of the photos of one person, the first ones


@dataclass(frozen=True)
class PhotoRecord:
    """One line of a shard.

    Attributes:
        person_seed: of `sample_person`.
        photo: 0 .. photos-1, its place among the person's photos.
        scene_seed: of `sample_scene`.
        kind: "selfie", "scene", or "aged" where the person is older or younger than in all others.
        caption: words.
        facts: see `scene.facts`.
        landmarks: five x, y in pixels, the picture's left before its right.
        face_box: left, top, right, bottom in pixels.
        visible: whether the landmarks can be trusted for a crop.
    """

    person_seed: int
    photo: int
    scene_seed: int
    kind: str
    caption: str
    facts: dict[str, str]
    landmarks: list[list[float]]
    face_box: list[float]
    visible: bool


def shard_name(start: int, switched: bool = False) -> str:
    """File stem of the shard whose first person has this seed."""
    return f"shard-{start:07d}{SWITCHED_SUFFIX if switched else ''}"


def write_shard(
    folder: Path, name: str, images: NDArray[np.uint8], records: Sequence[PhotoRecord]
) -> None:
    """Write one shard; a reader sees all of it or nothing."""
    if len(images) != len(records):
        raise ValueError(
            f"{name} has {len(images)} images but {len(records)} records; "
            "give one record per image."
        )
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f".{name}.{os.getpid()}.npy"
    np.save(picture, images)
    lines = folder / f".{name}.{os.getpid()}.jsonl"
    lines.write_text("".join(json.dumps(vars(record)) + "\n" for record in records))
    picture.replace(folder / f"{name}.npy")
    lines.replace(folder / f"{name}.jsonl")


def mark_look(folder: Path) -> None:
    """Note in a folder which look its photos have.

    Raises:
        ValueError: it holds photos of another look, which would be mixed unnoticed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / "look.txt"
    found = mark.read_text().strip() if mark.exists() else "1" if finished_shards(folder) else LOOK
    if found != LOOK:
        raise ValueError(
            f"The photos in {folder} have look {found} of the renderer, which now draws look "
            f"{LOOK}. Name an empty folder with --out, so that the two are not mixed."
        )
    mark.write_text(LOOK + "\n")


def finished_shards(folder: Path) -> list[str]:
    """Names of the shards of a folder that are complete."""
    return sorted(path.stem for path in folder.glob("shard-*.jsonl"))


def read_shard(folder: Path, name: str) -> tuple[NDArray[np.uint8], list[PhotoRecord]]:
    """Memory-mapped photos of a finished shard and their records."""
    images: NDArray[np.uint8] = np.load(folder / f"{name}.npy", mmap_mode="r")
    lines = (folder / f"{name}.jsonl").read_text().splitlines()
    return images, [PhotoRecord(**json.loads(line)) for line in lines]


class PhotoCache:
    """Reads finished shards; `refresh` finds those written since."""

    def __init__(self, folder: Path) -> None:
        """Look the folder through once."""
        self.folder = Path(folder)
        self._images: dict[str, NDArray[np.uint8]] = {}
        self._seen: set[str] = set()
        self.records: list[PhotoRecord] = []
        self._where: list[tuple[str, int]] = []
        self.refresh()

    def refresh(self) -> int:
        """Take in new shards; returns how many. Earlier photos keep their numbers."""
        new = [name for name in finished_shards(self.folder) if name not in self._seen]
        for name in new:
            self._images[name], records = read_shard(self.folder, name)
            self.records += records
            self._where += [(name, row) for row in range(len(records))]
            self._seen.add(name)
        return len(new)

    def __len__(self) -> int:
        """Photos known so far."""
        return len(self.records)

    def image(self, index: int) -> NDArray[np.uint8]:
        """(size, size, 3) uint8 RGB, a view into the file."""
        name, row = self._where[index]
        return np.asarray(self._images[name][row], np.uint8)

    def people(self) -> dict[int, list[int]]:
        """Numbers of the photos of each person, by person seed."""
        result: dict[int, list[int]] = {}
        for index, record in enumerate(self.records):
            result.setdefault(record.person_seed, []).append(index)
        return result


def choose_scenes(person_seed: int, photos: int, keep_held_out: bool = False) -> list[Scene]:
    """The scenes of one person's photos: selfies first; held-out wishes are drawn again."""
    person = sample_person(person_seed)
    selfies = round(photos * SELFIES / 8)
    scenes: list[Scene] = []
    for photo in range(photos):
        kind = "selfie" if photo < selfies else "scene"
        seed = photo
        scene = sample_scene(person, seed, kind)
        while not keep_held_out and is_held_out(facts(person, scene)):
            seed += 1000
            scene = sample_scene(person, seed, kind)
        scenes.append(scene)
    return scenes


def render_person(
    renderer: Any, person_seed: int, photos: int, size: int, switched: bool = False
) -> tuple[list[NDArray[np.uint8]], list[PhotoRecord]]:
    """All photos of one person with their records, ordinary or as trait switches ask."""
    person = sample_person(person_seed)
    chosen = (
        switched_photos(person, photos)
        if switched
        else [
            (person, scene, scene.kind, write_caption(person, scene, photo))
            for photo, scene in enumerate(choose_scenes(person_seed, photos))
        ]
    )
    images, records = [], []
    for photo, (shown, scene, kind, caption) in enumerate(chosen):
        drawn = renderer.photograph(shown, scene, size)
        images.append(drawn.image)
        records.append(
            PhotoRecord(
                person_seed=person_seed,
                photo=photo,
                scene_seed=scene.seed,
                kind=kind,
                caption=caption,
                facts=facts(shown, scene),
                landmarks=[[round(float(v), 2) for v in point] for point in drawn.landmarks],
                face_box=[round(v, 2) for v in drawn.face_box],
                visible=drawn.visible,
            )
        )
    return images, records


def fill_cache(
    folder: Path,
    starts: Sequence[int],
    last: int,
    photos: int,
    size: int,
    until: float,
    switched: bool,
) -> None:
    """Render the shards that start at these seeds, leaving out finished ones."""
    from training.people.renderer import Renderer

    renderer = None
    for start in starts:
        name = shard_name(start, switched)
        if (folder / f"{name}.jsonl").exists():
            continue
        renderer = renderer or Renderer(size=size)
        images: list[NDArray[np.uint8]] = []
        records: list[PhotoRecord] = []
        begun = time.perf_counter()
        for seed in range(start, min(start + SHARD_PEOPLE, last)):
            if time.time() > until:
                return
            more, lines = render_person(renderer, seed, photos, size, switched)
            images += more
            records += lines
        write_shard(folder, name, np.stack(images), records)
        seconds = (time.perf_counter() - begun) / len(images)
        print(f"{name}: {len(images)} photos, {seconds:.3f} s each", flush=True)


def main() -> None:
    """Fill a cache from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--start-seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this long")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--switched", action="store_true", help="photos as trait switches ask, beside the others"
    )
    given = parser.parse_args()
    last = given.start_seed + given.people
    mark_look(given.out)
    starts = list(range(given.start_seed, last, SHARD_PEOPLE))
    until = time.time() + given.minutes * 60
    rest = (last, given.photos, given.size, until, given.switched)
    if given.workers == 1:
        fill_cache(given.out, starts, *rest)
        return
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=fill_cache, args=(given.out, starts[i :: given.workers], *rest))
        for i in range(given.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
