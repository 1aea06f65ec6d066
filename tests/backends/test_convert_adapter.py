from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from imagine.backends.convert_adapter import convert, main
from imagine.backends.faceid_weights import read_adapter
from imagine.errors import CorruptWeights, InvalidInput
from tests.backends.tiny_faceid import tiny_adapter, tiny_sd15


def publish(folder: Path, name: str, *, plus: bool) -> Path:
    """An adapter as its authors publish it: two dictionaries in a pickle."""
    nested: dict[str, Any] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in tiny_adapter(tiny_sd15().unet, plus=plus, lora=True).items():
        group, _, rest = key.partition(".")
        nested[group][rest] = tensor
    torch.save(nested, folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("name", "plus", "has_shortcut"),
    [
        ("ip-adapter-faceid_sd15.bin", False, False),
        ("ip-adapter-faceid-plus_sd15.bin", True, False),
        ("ip-adapter-faceid-plusv2_sd15.bin", True, True),
    ],
)
def test_a_published_checkpoint_comes_out_whole_and_knows_its_kind_under_any_name(
    tmp_path: Path, name: str, plus: bool, has_shortcut: bool
) -> None:
    source = publish(tmp_path, name, plus=plus)
    count = convert(source, tmp_path / "mine.safetensors")
    adapter = read_adapter(tmp_path / "mine.safetensors")
    published = torch.load(source, weights_only=True)
    assert count == len(adapter.image_proj) + len(adapter.ip_adapter)
    for group in ("image_proj", "ip_adapter"):
        read = getattr(adapter, group)
        assert read.keys() == published[group].keys()
        assert all(torch.equal(read[key], tensor) for key, tensor in published[group].items())
    assert (adapter.wants_picture, adapter.has_shortcut) == (plus, has_shortcut)


def test_a_pickle_that_runs_code_is_not_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "trap.bin").write_bytes(pickle.dumps({"image_proj": Trap()}))
    with pytest.raises(CorruptWeights, match="was not opened"):
        convert(tmp_path / "trap.bin", tmp_path / "out.safetensors")
    assert not (tmp_path / "sprung").exists() and not (tmp_path / "out.safetensors").exists()


def test_an_existing_target_or_one_of_another_kind_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.bin")
    (tmp_path / "kept.safetensors").write_bytes(b"precious")
    for target in ("kept.safetensors", "out.bin"):
        with pytest.raises(InvalidInput, match=target):
            convert(tmp_path / "a.bin", tmp_path / target)
    assert (tmp_path / "kept.safetensors").read_bytes() == b"precious"


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.bin")
    with pytest.raises(CorruptWeights, match="no tensors"):
        convert(tmp_path / "a.bin", tmp_path / "out.safetensors")


def test_the_command_line_converts_or_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.bin")
    assert main([str(tmp_path / "a.bin"), str(tmp_path / "a.safetensors")]) == 0
    assert "1 tensors" in capsys.readouterr().out
    assert main([str(tmp_path / "none.bin"), str(tmp_path / "b.safetensors")]) == 2
    assert "none.bin" in capsys.readouterr().err
    assert main([]) == 2


def test_the_command_in_our_messages_runs() -> None:
    command = [sys.executable, "-m", "imagine.backends.convert_adapter"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2 and "Usage" in run.stderr
