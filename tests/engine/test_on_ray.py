from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.ray_story"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Ray's own processes write to the same stream.
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    answer: dict[str, Any] = json.loads(line)
    return answer


def test_two_replicas_draw_what_one_machine_draws(told: dict[str, Any]) -> None:
    assert told["backend"] == "fake"
    assert told["same_as_one_machine"]


def test_requests_of_one_person_go_to_the_replica_that_knows_the_person(
    told: dict[str, Any],
) -> None:
    # Chance alone would give half of 48; a router may leave a replica that is slow to answer.
    assert told["went_where_they_were_known"] >= 0.8
    assert told["replicas_used"] == 2


def test_progress_streams_back_step_by_step(told: dict[str, Any]) -> None:
    assert set(told["steps_told"]) >= {0, 1, 2, 3, 4}


def test_cancelling_here_stops_the_drawing_there(told: dict[str, Any]) -> None:
    assert told["canceled"]
    assert told["left_running"] == 0


def test_absurd_figures_are_refused_before_they_travel(told: dict[str, Any]) -> None:
    assert "num_inference_steps is 0" in told["refused"]


def test_the_single_machine_never_imports_ray() -> None:
    program = "import sys, imagine, imagine.engine, imagine.api; print('ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
