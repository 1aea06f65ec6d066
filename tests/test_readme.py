import ast
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from imagine.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAPERS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "assets/README.md", "training/LOG.md")


@pytest.mark.parametrize("paper", PAPERS)
def test_every_link_leads_to_a_file(paper):
    text = (ROOT / paper).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert ((ROOT / paper).parent / target).exists(), target


def test_every_command_of_the_readme_exists():
    named = set(re.findall(r"imagine-me (\w+)", README))
    shown = CliRunner().invoke(app, ["--help"]).output
    assert named >= {"check", "generate", "demo", "eval"}
    for command in named:
        assert re.search(rf"\b{command}\b", shown), command


def test_every_make_target_of_the_papers_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for paper in PAPERS:
        named = set(re.findall(r"`make ([\w-]+)`", (ROOT / paper).read_text()))
        assert named <= targets, (paper, named - targets)


def test_the_python_of_the_readme_parses():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        ast.parse(block)


def test_every_file_of_the_readme_tree_exists():
    tree = next(block for block in re.findall(r"```\n(.*?)```", README, re.DOTALL))
    room = ROOT
    for line in tree.splitlines():
        names = re.findall(r"^\s*((?:[\w./-]+(?:\.py|/)\s?)+)", line)
        for name in names[0].split() if names else []:
            place = (room if line.startswith(" ") else ROOT) / name
            assert place.exists(), name
            if not line.startswith(" "):
                room = place
