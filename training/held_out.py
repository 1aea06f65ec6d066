"""People and wishes kept for evaluation: selfies, a held-out photo, and the true picture.

The selfies take the product's own way in (detect, check, align, mask, embed). The true picture is
a render of the same person in the wished scene: no model can be asked to do better. Everything
is kept on disk, keyed by the code that made it, so that judging new weights costs only drawing.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from imagine.core import Face, FloatArray, ImageArray
from imagine.errors import InvalidInput, MissingExtra, MissingWeights
from imagine.identity import build_identity
from imagine.identity.base import FaceDetector, FaceEncoder
from imagine.identity.dlib_faces import DlibDetector, DlibEncoder
from imagine.identity.fuse import fuse_embeddings
from imagine.settings import Settings
from training.people.person import DYED_COLOURS, HAIR_COLOURS, Person, sample_person
from training.people.scene import CLOTHING_COLOURS, Scene, facts, sample_scene
from training.people.splits import SPLITS

SELFIES = 3  # photos the backend is given
ATTEMPTS = 10  # photos tried until SELFIES + 1 are accepted
SELFIE_SIZE = 320  # pixels; the face is then 140 to 210 wide
_RENDERER_FILES = (
    "assets", "basis", "camera", "glasses", "person", "renderer", "scene", "shaders", "skin",
    "styles",
)  # fmt: skip
GROUPS = ("skin_tone", "age_band", "sex")


@dataclass(frozen=True)
class HeldOutWish:
    """A prompt nobody trained on, what must be seen, and the scene that shows it.

    Attributes:
        prompt: in words and order that the caption writer does not use.
        wants: attribute -> classes that satisfy the prompt.
        scene: facts of the true picture.
    """

    prompt: str
    wants: Mapping[str, tuple[str, ...]]
    scene: Mapping[str, str]


def _wish(prompt: str, scene: dict[str, str], **wider: tuple[str, ...]) -> HeldOutWish:
    wants = {name: wider.get(name, (value,)) for name, value in scene.items()}
    return HeldOutWish(prompt, wants, scene)


_SMILES = ("smiling", "soft smile", "laughing")
# The combinations are those of `people.splits.HELD_OUT`. No prompt names sex, age or skin, so that
# whatever likeness comes out came in by the selfies. The first four do for a quick look.
WISHES: tuple[HeldOutWish, ...] = (
    _wish(
        "me laughing out loud on a hike deep in the woods",
        {"expression": "laughing", "place": "forest"},
    ),
    _wish(
        "it's me, strolling through the city in my bright yellow t-shirt, smiling",
        {"place": "city", "clothing_colour": "yellow", "expression": "smiling"},
        expression=_SMILES,
    ),
    _wish(
        "as a scientist in the laboratory with round glasses on",
        {"place": "lab", "glasses": "round"},
    ),
    _wish(
        "a black and white shot of this person watching the sunset",
        {"style": "black and white", "place": "sunset"},
    ),
    _wish(
        "my new look: bright blue hair and a green top",
        {"hair_colour": "blue", "clothing_colour": "green"},
    ),
    _wish(
        "standing on the waterfront in the evening, totally astonished",
        {"place": "venice", "expression": "surprised"},
    ),
    _wish(
        "furious because nothing works in the workshop today",
        {"place": "workshop", "expression": "angry"},
    ),
    _wish(
        "feeling sad during a walk in the park",
        {"place": "park", "expression": "sad"},
    ),
    _wish(
        "surprised, hair dyed pink, posing under studio lights",
        {"expression": "surprised", "hair_colour": "pink", "place": "studio"},
    ),
    _wish(
        "out on a night walk, dressed in red",
        {"place": "night", "clothing_colour": "red"},
    ),
    _wish(
        "a serious look from under my hat, in some warehouse",
        {"expression": "neutral", "hat": "fedora", "place": "warehouse"},
    ),
    _wish(
        "sepia picture from the ballroom, with a gentle smile",
        {"style": "sepia", "place": "hall", "expression": "soft smile"},
        expression=("soft smile", "smiling"),
    ),
)


@dataclass(frozen=True)
class HeldOutPerson:
    """Somebody the model has never seen, ready to be drawn and compared.

    Attributes:
        seed: of `sample_person`.
        groups: skin_tone, age_band and sex.
        selfie: (h, w, 3) uint8, the first selfie, for the contact sheet.
        crops: (SELFIES, CROP_SIZE, CROP_SIZE, 3) uint8, aligned and masked.
        embeddings: (SELFIES, d) float32 of the selfies.
        embedding: (d,) float32, fused from them.
        target: (d,) float32 of one more selfie that nothing was conditioned on.
        tried: photos looked at until enough were accepted.
    """

    seed: int
    groups: Mapping[str, str]
    selfie: ImageArray = field(repr=False)
    crops: ImageArray = field(repr=False)
    embeddings: FloatArray = field(repr=False)
    embedding: FloatArray = field(repr=False)
    target: FloatArray = field(repr=False)
    tried: int


@dataclass(frozen=True)
class JudgedPicture:
    """A picture and the embedding of its largest face, None where no face was found."""

    image: ImageArray = field(repr=False)
    embedding: FloatArray | None = field(repr=False)


class FaceJudge:
    """dlib's detector and recogniser: the judge that never conditioned anything."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.detector: FaceDetector = DlibDetector.load(self.settings)
        self.encoder: FaceEncoder = DlibEncoder.load(self.settings)

    def judge(self, image: ImageArray) -> JudgedPicture:
        """Embed the largest face."""
        faces = self.detector.detect(image)
        if not faces:
            return JudgedPicture(image, None)
        largest: Face = max(faces, key=lambda face: face.width * face.height)
        return JudgedPicture(image, self.encoder.embed(image, largest))


class HeldOutStudio:
    """Photographs held-out people and keeps what it made on disk."""

    def __init__(
        self, cache: Path, assets: Path | None, picture_size: int, judge: FaceJudge | None = None
    ) -> None:
        """Nothing is opened until a photo is missing from the cache.

        Args:
            cache: folder of kept results.
            assets: the people assets; None takes their usual place.
            picture_size: side of the true pictures, that of the backend's.
            judge: the face judge, opened here where left out.
        """
        self._folder = cache / renderer_version()
        self._assets = assets
        self._size = picture_size
        self._judge = judge
        self._renderer: Any = None

    @property
    def judge(self) -> FaceJudge:
        """The face judge, opened once."""
        self._judge = self._judge or FaceJudge()
        return self._judge

    def person(self, seed: int) -> HeldOutPerson | None:
        """Selfies of one person through the product's own door.

        Returns:
            None when too few of ATTEMPTS photos were accepted.
        """
        path = self._folder / f"person-{seed}.npz"
        if not path.exists():
            self._keep(path, self._photograph_person(seed))
        with np.load(path) as stored:
            kept = dict(stored)
        if len(kept["embeddings"]) <= SELFIES:
            return None
        known = facts(sample_person(seed), sample_scene(sample_person(seed), 0, "selfie"))
        return HeldOutPerson(
            seed=seed,
            groups={name: known[name] for name in GROUPS},
            selfie=kept["selfie"],
            crops=kept["crops"][:SELFIES],
            embeddings=kept["embeddings"][:SELFIES],
            embedding=fuse_embeddings(kept["embeddings"][:SELFIES]),
            target=kept["embeddings"][SELFIES],
            tried=int(kept["tried"]),
        )

    def true_picture(self, seed: int, wish: HeldOutWish) -> JudgedPicture:
        """The person really in that scene, judged like a generated picture."""
        name = hashlib.sha256(repr(sorted(wish.scene.items())).encode()).hexdigest()[:10]
        path = self._folder / f"true-{seed}-{self._size}-{name}.npz"
        if not path.exists():
            person = sample_person(seed)
            scene = staged_scene(person, wish.scene, int(name, 16) % 1_000_000)
            judged = self.judge.judge(self._photograph(person, scene, self._size))
            embedding = judged.embedding if judged.embedding is not None else np.zeros(0)
            self._keep(path, {"image": judged.image, "embedding": embedding})
        with np.load(path) as stored:
            image, vector = stored["image"], stored["embedding"]
        return JudgedPicture(image, vector if len(vector) else None)

    def _photograph_person(self, seed: int) -> dict[str, Any]:
        person = sample_person(seed)
        crops: list[ImageArray] = []
        embeddings: list[FloatArray] = []
        selfie: ImageArray | None = None
        tried = 0
        while len(embeddings) <= SELFIES and tried < ATTEMPTS:
            photo = self._photograph(person, sample_scene(person, tried, "selfie"), SELFIE_SIZE)
            tried += 1
            try:
                identity = build_identity(
                    [photo], self.judge.detector, self.judge.encoder, self.judge.settings
                )
            except InvalidInput:
                continue  # a person would take another photo; how often is reported
            selfie = photo if selfie is None else selfie
            crops.append(identity.crops[0])
            embeddings.append(identity.embeddings[0])
        return {
            "selfie": np.zeros((1, 1, 3), np.uint8) if selfie is None else selfie,
            "crops": np.array(crops, np.uint8),
            "embeddings": np.array(embeddings, np.float32),
            "tried": np.array(tried),
        }

    def _photograph(self, person: Person, scene: Scene, size: int) -> ImageArray:
        if self._renderer is None:
            self._renderer = open_renderer(self._assets)
        image: ImageArray = self._renderer.render(person, scene, size)
        return image

    def _keep(self, path: Path, arrays: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp.npz")
        np.savez_compressed(partial, **arrays)
        partial.replace(path)


def held_out_seeds(count: int) -> Sequence[int]:
    """Seeds of people who are never trained on."""
    seeds = SPLITS["evaluate"]
    if count > len(seeds):
        raise InvalidInput(f"{count} people were asked for; {len(seeds)} are kept for evaluation.")
    return seeds[:count]


def staged_scene(person: Person, wanted: Mapping[str, str], seed: int) -> Scene:
    """A photo of this person in which the wanted facts hold and nothing unasked is worn.

    Pose, light, framing and expression come from the sampler; it is asked again until the
    expression fits and wanted clothes are in the frame.
    """
    framings = ("portrait", "head and shoulders") if "clothing_colour" in wanted else ()
    scene = sample_scene(person, seed)
    for again in range(1, 2000):
        expression_fits = wanted.get("expression", scene.expression) == scene.expression
        if expression_fits and (not framings or scene.framing in framings):
            break
        scene = sample_scene(person, seed + 1_000_000 * again)
    changes: dict[str, Any] = {
        "glasses": wanted.get("glasses", "none"),
        "hat": wanted.get("hat", "none"),
        "style": wanted.get("style", "colour photo"),
        "place": wanted.get("place", scene.place),
        "hair_colour": person.hair_colour,
        "hair_rgb": person.hair_rgb,
        "hair_changed": False,
    }
    if "clothing_colour" in wanted:
        changes["clothing_colour"] = wanted["clothing_colour"]
        changes["clothing_rgb"] = CLOTHING_COLOURS[wanted["clothing_colour"]]
    if "hair_colour" in wanted and person.hair_style not in ("bald", "buzz"):
        changes["hair_colour"] = wanted["hair_colour"]
        changes["hair_rgb"] = {**HAIR_COLOURS, **DYED_COLOURS}[wanted["hair_colour"]]
        changes["hair_changed"] = True
    return replace(scene, **changes)


def open_renderer(assets: Path | None) -> Any:
    """The people renderer, or a sentence about what it lacks.

    Raises:
        MissingExtra: a package of the renderer, or EGL, is not installed.
        MissingWeights: the people assets are not there.
    """
    from training.people.assets import assets_path

    folder = assets or assets_path()
    if not folder.is_dir():
        raise MissingWeights(
            f"The people assets are not in {folder}. Name their folder with --assets or "
            "IMAGINE_PEOPLE_ASSETS."
        )
    try:
        from training.people.renderer import Renderer

        return Renderer(folder, size=SELFIE_SIZE)
    except Exception as error:  # moderngl raises plain exceptions of several kinds
        raise MissingExtra(
            f"The people renderer cannot start ({type(error).__name__}: {error}). "
            "Run: pip install 'imagine-yourself[train]' and install libegl1 and libgl1-mesa-dri."
        ) from error


def renderer_version() -> str:
    """Hash of everything that decides what a held-out photo and its embedding look like."""
    import imagine.identity
    import training.people

    people = Path(training.people.__file__).parent
    identity = Path(imagine.identity.__file__).parent
    files = [people / f"{name}.py" for name in _RENDERER_FILES]
    files += [identity / f"{name}.py" for name in ("align", "dlib_faces", "fuse", "quality")]
    # This file counts by what photographs and stages; a new wish leaves the rest valid.
    own = inspect.getsource(HeldOutStudio) + inspect.getsource(staged_scene)
    digest = hashlib.sha256(f"{SELFIES} {ATTEMPTS} {SELFIE_SIZE} {own}".encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
