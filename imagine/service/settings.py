"""What an operator decides about a service; read once from the environment, then frozen.

Where things are kept is told by `imagine.settings`, which commands without a service read too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagine.errors import InvalidInput

_PREFIX = "IMAGINE_SERVICE_"
_CPU_JOBS = 4


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Which models a service runs, whom it lets in, and how much it lets anybody do.

    Attributes:
        backend: image model, a name in `imagine.backends.BACKENDS`.
        detector: face detector, a name in `imagine.identity.FACE_DETECTORS`.
        encoder: face recogniser, a name in `imagine.identity.FACE_ENCODERS`.
        device: "cpu", "cuda", ...
        weights: folder of the backend's weights; None takes the backend's own place.
        licence: "permissive" loads only weights that may be used commercially, "research" any.
        single_user: whoever sits at this machine may do everything, without a key.
        requests_per_minute: of one key.
        tenant_requests_per_minute: of all keys of a tenant together.
        concurrent_jobs: jobs a worker holds at once, at most 4 of them on a CPU, where pictures
            are drawn one after the other; else the engine batches them.
        preview_seconds: least time between two previews of a picture; 0 shows none.
        accepted_consent_texts: hex SHA-256 of the consent texts that hold; empty: every text.
    """

    backend: str = "embedded"
    detector: str = "dlib"
    encoder: str = "dlib"
    device: str = "cpu"
    weights: Path | None = None
    licence: str = "permissive"
    single_user: bool = False
    requests_per_minute: int = 300
    tenant_requests_per_minute: int = 1200
    concurrent_jobs: int = 16
    preview_seconds: float = 1.0
    accepted_consent_texts: tuple[str, ...] = ()

    @property
    def jobs_at_once(self) -> int:
        """Jobs a worker holds at once on this device."""
        return (
            min(self.concurrent_jobs, _CPU_JOBS) if self.device == "cpu" else self.concurrent_jobs
        )

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, /, **chosen: object
    ) -> ServiceSettings:
        """Settings from IMAGINE_SERVICE_<NAME>; what is `chosen` wins over the environment.

        Raises:
            InvalidInput: a number is not a number; names the variable.
        """
        found: dict[str, object] = {}
        for name in ("backend", "detector", "encoder", "device", "licence"):
            _take(found, environment, name, str)
        for name in ("requests_per_minute", "tenant_requests_per_minute", "concurrent_jobs"):
            _take(found, environment, name, int)
        _take(found, environment, "preview_seconds", float)
        _take(found, environment, "weights", Path)
        texts = environment.get(f"{_PREFIX}ACCEPTED_CONSENT_TEXTS", "")
        found["accepted_consent_texts"] = tuple(texts.replace(",", " ").split())
        return cls(**{**found, **chosen})  # type: ignore[arg-type]


def _take(found: dict[str, object], environment: Mapping[str, str], name: str, kind: type) -> None:
    variable = f"{_PREFIX}{name.upper()}"
    text = environment.get(variable, "")
    if not text:
        return
    try:
        found[name] = kind(text)
    except ValueError as error:
        raise InvalidInput(f"{variable} is {text!r}; it must be a number.") from error
