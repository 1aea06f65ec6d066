"""What every test may rely on: nothing outside its own folders, and harmless output checks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from imagine import api
from imagine.safety import CheckSettings, OutputChecks, OutputTools, SeenFace, usual_checks


@pytest.fixture(autouse=True)
def calm_checks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Painted faces have no age: tests of other things see a grown-up, dressed person.

    The faces are still looked for and compared. Tests marked `real_checks` get the real networks.
    """
    is_calm = request.node.get_closest_marker("real_checks") is None
    # Set either way: a fixture of the whole run may have left calm ones.
    monkeypatch.setattr(api, "usual_checks", calm if is_calm else usual_checks)


@pytest.fixture(scope="session", autouse=True)
def own_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Logs and keys of a test run lie in a folder of its own, never in the developer's."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGINE_DATA_DIR", str(folder / "kept"))
        patch.setenv("IMAGINE_MASTER_KEY", f"file:{folder / 'secrets' / 'master.key'}")
        patch.setenv("IMAGINE_CANDIDATES", "1")  # tests of choosing ask for more themselves
        yield


def calm(  # type: ignore[no-untyped-def]
    detector, encoder, settings=None, listed=None, record_event=lambda kind, facts: None
) -> OutputChecks:
    """Every check: what the networks would say is calm, all else is as given."""

    def see(image):  # type: ignore[no-untyped-def]
        return [SeenFace(face, encoder.embed(image, face)) for face in detector.detect(image)]

    tools = OutputTools(
        score_nudity=lambda image: 0.0,
        see_faces=see,
        distance=encoder.distance,
        same_person_distance=encoder.same_person_distance,
        estimate_ages=lambda image, faces: [30.0] * len(faces),
        listed_distance=listed or (lambda embedding: math.inf),
    )
    return OutputChecks(tools, settings or CheckSettings(), record_event)
