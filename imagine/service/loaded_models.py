"""The models of a service: opened once, when they are first needed, and shared by everybody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
from PIL import Image

from imagine.api import Guard, Imagine
from imagine.backends import BackendInfo
from imagine.core import CROP_SIZE, Face, Identity, ImageArray, PhotoReport, Recipe
from imagine.engine import Engine, EngineStats, Limits, Priority
from imagine.errors import Busy
from imagine.identity import build_identity, identity_of_crops
from imagine.identity.align import TEMPLATE
from imagine.identity.base import FaceDetector, FaceEncoder
from imagine.identity.quality import head_pose
from imagine.pipeline import Tools
from imagine.provenance import MarkedImage
from imagine.safety.enrolment import FrameMeasure, Origin, Upload
from imagine.safety.output_checks import shipped_networks
from imagine.service.settings import ServiceSettings
from imagine.settings import Settings

Mark = Callable[[ImageArray, Recipe], MarkedImage]
FACES_AT_ONCE = 2  # photos are judged on the processor, which others need as well
FACES_WAIT_SECONDS = 60.0
# The face of an aligned crop; nobody asks for its mouth, so the eyes stand in for that.
_CROPPED = Face(
    (0.0, 0.0, float(CROP_SIZE), float(CROP_SIZE)),
    np.vstack([TEMPLATE, TEMPLATE[:2]]).astype(np.float32) * np.float32(CROP_SIZE),
    1.0,
)
_FRAME_SIDE = 640  # pixels; camera frames are shrunk to that before faces are looked for


class LoadedModels:
    """Image model, face detector and face recogniser by the names in the settings."""

    def __init__(self, chosen: ServiceSettings, settings: Settings) -> None:
        """Remember the names; nothing heavy is opened.

        Raises:
            UnknownName: a name no registry knows.
            InvalidInput: an unknown licence mode.
        """
        # Opening models, and whether their licences and one another allow it, is told once: there.
        self._door = Imagine(
            chosen.backend,
            chosen.detector,
            chosen.encoder,
            chosen.device,
            settings,
            chosen.weights,
            chosen.licence,
        )
        self.settings = settings
        self._chosen = chosen
        self._loading = threading.Lock()
        self._judging = threading.BoundedSemaphore(FACES_AT_ONCE)
        self._engine: Engine | None = None
        self._mark: Mark | None = None
        self._faces: tuple[FaceDetector, FaceEncoder] | None = None
        self._is_checked = False
        # Of the process that draws, where that is another one: see `worker_process`.
        self._info_elsewhere: BackendInfo | None = None
        self._stats_elsewhere: EngineStats | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether everything has been opened."""
        can_draw = self._engine is not None and self._is_checked
        return self._faces is not None and (can_draw or self._info_elsewhere is not None)

    @property
    def name(self) -> str:
        """The backend's name, known without opening it."""
        return self._chosen.backend

    @property
    def info(self) -> BackendInfo:
        """Facts about the image model; opens it.

        Raises:
            Busy: another process draws, and has not opened it yet.
        """
        if self._info_elsewhere is not None:
            return self._info_elsewhere
        if self._chosen.worker_process:
            raise Busy("The image model is being opened. Try again in a moment.", 5.0)
        return self.engine.backend.info

    @property
    def stats(self) -> EngineStats | None:
        """What the image model has done and has to do; None before it is opened."""
        if self._chosen.worker_process:
            return self._stats_elsewhere
        with self._loading:
            return None if self._engine is None else self._engine.stats

    def are_elsewhere(self, info: BackendInfo) -> None:
        """Another process has opened the image model."""
        self._info_elsewhere = info

    def doing_elsewhere(self, stats: EngineStats) -> None:
        """What its engine there has done and has to do."""
        self._stats_elsewhere = stats

    @property
    def engine(self) -> Engine:
        """The image model in its loop; opens it.

        Raises:
            MissingWeights, CorruptWeights: as the backend's `load`.
            LicenceRefused: some weights may not be used in this licence mode.
        """
        with self._loading:
            if self._engine is None:
                backend = self._door.backend
                self._engine = Engine(backend, self._limits(backend.info))
            return self._engine

    @property
    def faces(self) -> tuple[FaceDetector, FaceEncoder]:
        """Detector and recogniser; opens them."""
        with self._loading:
            if self._faces is None:
                self._faces = self._door.faces
            return self._faces

    def load(self) -> None:
        """Open everything now that this process needs, the output checks as well.

        Raises:
            CheckMissing: a safety check cannot run here.
        """
        if self._chosen.worker_process:
            _ = self.faces
        else:
            _ = self.engine, self.faces, self.tools("local")

    def tools(self, tenant_id: str) -> Tools:
        """What the pipeline works with, on the account of a tenant."""
        tools = self._door.tools(self.engine)
        self._is_checked = True
        mark = self._mark or tools.mark
        return replace(tools, tenant=tenant_id, priority=Priority.INTERACTIVE, mark=mark)

    def mark_with(self, mark: Mark) -> None:
        """Give pictures their marks this way instead of the Python door's."""
        self._mark = mark

    def guard_with(self, guard: Guard) -> None:
        """Check faces and pictures with this list and tell this log, not the Python door's."""
        self._door.guard_with(guard)

    def origin(self, photo: Upload) -> Origin:
        """Whether a photo says that a machine made it."""
        return self._door.origin(photo)

    def apparent_ages(self, face: Identity) -> list[float]:
        """How old the face on each photo looks, in years; kept nowhere.

        Estimated on the aligned crops: 1 to 4 years from what the whole photos of the sample
        people give, and no face has to be found a second time.

        Raises:
            CheckMissing: the age network is not installed.
        """
        _, estimate = shipped_networks()
        return [age for crop in face.crops for age in estimate(crop, [_CROPPED])]

    def measure_frame(self, image: ImageArray, ahead_degrees: float) -> FrameMeasure:
        """What a camera check wants to know of a frame; straight faces alone are described."""
        detector, encoder = self.faces
        shrunk = Image.fromarray(image)
        shrunk.thumbnail((_FRAME_SIDE, _FRAME_SIDE))
        small = np.asarray(shrunk)
        faces = detector.detect(small)
        if len(faces) != 1:
            return FrameMeasure(len(faces), 0.0, None)
        yaw, _, _ = head_pose(faces[0].landmarks)
        is_straight = abs(yaw) <= ahead_degrees
        return FrameMeasure(1, yaw, encoder.embed(small, faces[0]) if is_straight else None)

    def judging_faces(self) -> AbstractContextManager[None]:
        """One of the few places for looking at faces.

        Raises:
            Busy: too many photos are being judged already.
        """
        return _Turn(self._judging)

    @property
    def embedding_size(self) -> int:
        """How many numbers a face vector of the recogniser has."""
        grey = np.full((CROP_SIZE, CROP_SIZE, 3), 128, np.uint8)
        return int(self.faces[1].embed(grey, _CROPPED).shape[0])

    def make_identity(self, photos: list[bytes], choose: dict[int, int] | None) -> Identity:
        """One person out of photos, if they may be made known.

        Arguments and errors as `Imagine.identity`.

        Raises:
            EnrolmentRefused: a machine made a photo, or the person asked never to be shown.
            Busy: too many photos are being judged already.
        """
        with _Turn(self._judging):
            return self._door.identity(photos, choose).identity

    def describe(self, photos: list[bytes], choose: dict[int, int] | None) -> Identity:
        """One person out of photos; whether they may be made known is the caller's question.

        Arguments and errors as `imagine.identity.build_identity`.

        Raises:
            Busy: too many photos are being judged already.
        """
        detector, encoder = self.faces
        with _Turn(self._judging):
            return build_identity(photos, detector, encoder, self.settings, choose)

    def describe_crops(self, crops: ImageArray, reports: Sequence[PhotoReport]) -> Identity:
        """One person out of aligned crops that came from elsewhere.

        Arguments and errors as `imagine.identity.identity_of_crops`.

        Raises:
            Busy: too many photos are being judged already.
        """
        detector, encoder = self.faces
        with _Turn(self._judging):
            return identity_of_crops(crops, detector, encoder, self.settings, reports)

    def check_photos(
        self, photos: list[bytes], choose: dict[int, int] | None
    ) -> tuple[PhotoReport, ...]:
        """What we think of photos; nothing is kept. Errors as `make_identity`."""
        with _Turn(self._judging):
            return self._door.check(photos, choose)

    def close(self) -> None:
        """End the engine; what it was drawing is cancelled."""
        with self._loading:
            if self._engine is not None:
                self._engine.close()

    def _limits(self, info: BackendInfo) -> Limits:
        # On a CPU a row's bits depend on how many rows share its pass; one by one, a crashed job
        # that is done again gives the same picture bit for bit. `imagine.api` has the figures.
        alone = info.device == "cpu"
        return Limits(
            max_forward_rows=1 if alone else Limits().max_forward_rows,
            max_active=4 if alone else Limits().max_active,
            preview_seconds=self._chosen.preview_seconds or None,
        )


class _Turn:
    """Waits for one of the few places, but not for ever."""

    def __init__(self, places: threading.BoundedSemaphore) -> None:
        self._places = places

    def __enter__(self) -> None:
        if not self._places.acquire(timeout=FACES_WAIT_SECONDS):
            raise Busy("Too many photos are being looked at. Try again in a minute.", 60.0)

    def __exit__(self, *exception: object) -> None:
        self._places.release()
