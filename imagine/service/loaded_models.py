"""The models of a service: opened once, when they are first needed, and shared by everybody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from imagine.api import Imagine
from imagine.backends import BackendInfo
from imagine.core import Identity, ImageArray, PhotoReport, Recipe
from imagine.engine import Engine, Limits, Priority
from imagine.errors import Busy
from imagine.identity import build_identity, check_photos
from imagine.identity.base import FaceDetector, FaceEncoder
from imagine.pipeline import Tools
from imagine.provenance import MarkedImage
from imagine.service.settings import ServiceSettings
from imagine.settings import Settings

Mark = Callable[[ImageArray, Recipe], MarkedImage]
FACES_AT_ONCE = 2  # photos are judged on the processor, which others need as well
FACES_WAIT_SECONDS = 60.0


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

    @property
    def is_loaded(self) -> bool:
        """Whether everything has been opened."""
        return self._engine is not None and self._faces is not None

    @property
    def name(self) -> str:
        """The backend's name, known without opening it."""
        return self._chosen.backend

    @property
    def info(self) -> BackendInfo:
        """Facts about the image model; opens it."""
        return self.engine.backend.info

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
        """Open everything now."""
        _ = self.engine, self.faces

    def tools(self, tenant_id: str) -> Tools:
        """What the pipeline works with, on the account of a tenant."""
        tools = self._door.tools(self.engine)
        mark = self._mark or tools.mark
        return replace(tools, tenant=tenant_id, priority=Priority.INTERACTIVE, mark=mark)

    def mark_with(self, mark: Mark) -> None:
        """Give pictures their marks this way instead of the Python door's."""
        self._mark = mark

    def make_identity(self, photos: list[bytes], choose: dict[int, int] | None) -> Identity:
        """One person out of photos. Arguments and errors as `imagine.identity.build_identity`.

        Raises:
            Busy: too many photos are being judged already.
        """
        detector, encoder = self.faces
        with _Turn(self._judging):
            return build_identity(photos, detector, encoder, self.settings, choose)

    def check_photos(
        self, photos: list[bytes], choose: dict[int, int] | None
    ) -> tuple[PhotoReport, ...]:
        """What we think of photos; nothing is kept. Errors as `make_identity`."""
        detector, encoder = self.faces
        with _Turn(self._judging):
            return check_photos(photos, detector, encoder, self.settings, choose)

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
