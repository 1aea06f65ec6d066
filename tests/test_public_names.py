"""What `import imagine` promises: these names, and nothing heavy."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import imagine
from imagine.errors import ImagineError


@pytest.mark.parametrize("name", imagine.__all__)
def test_every_public_name_can_be_fetched(name: str) -> None:
    assert getattr(imagine, name) is not None


def test_the_version_is_the_one_of_the_distribution() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())[
        "project"
    ]
    assert project["version"] == imagine.__version__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        imagine.nonsense  # noqa: B018


def test_every_error_is_public_except_the_base_of_none() -> None:
    def below(kind: type[BaseException]) -> set[str]:
        return {kind.__name__}.union(*(below(child) for child in kind.__subclasses__()))

    ours = {n for n in below(ImagineError) if hasattr(sys.modules["imagine.errors"], n)}
    assert ours <= set(imagine.__all__)


@pytest.mark.parametrize("statement", ["import imagine", "from imagine import Imagine; Imagine()"])
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str) -> None:
    probe = f"import sys; {statement}; print({{'torch', 'diffusers', 'dlib'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
