"""The layer reference matches the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import paths
import pytest

from siamese_proto.layers.base import registered

ROOT = paths.ROOT
PAGE = ROOT / "docs" / "layers.md"
OWN = [name for name, kind in registered().items() if kind.__module__.startswith("siamese_proto.")]


def test_the_layer_reference_is_current(tmp_path: Path) -> None:
    tool = ROOT / "tools" / "make_layer_reference.py"
    subprocess.run([sys.executable, str(tool), str(tmp_path / "layers.md")], check=True)
    assert PAGE.read_text() == (tmp_path / "layers.md").read_text(), "run: python tools/make_layer_reference.py"


def test_the_layer_reference_is_written_without_torch() -> None:
    code = "import sys; sys.path.insert(0, 'tools'); import make_layer_reference as made; made.reference()"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch._C' not in sys.modules"], check=True, cwd=ROOT)


@pytest.mark.parametrize("name", OWN)
def test_every_layer_documents_its_formula_its_shapes_and_its_source(name: str) -> None:
    documented = registered()[name].__doc__ or ""
    assert documented.partition("\n\n")[0].rstrip().endswith("."), "what it computes, in one sentence"
    assert "->" in documented, "its shapes: bottoms -> tops"
    source = r"Caffe: \w+\.[hc]pp|Not in BVLC Caffe\."
    assert re.search(source, documented), "the file of Caffe that defines it, or that there is none"


def test_every_link_of_the_layer_reference_leads_to_a_heading() -> None:
    text = PAGE.read_text()
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert links
    assert links <= headings


def test_every_setting_that_a_layer_takes_is_listed() -> None:
    text = PAGE.read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(OWN) <= set(sections)
    assert "| `offset` | uint32, any number of times |  |" in sections["Crop"]
    assert "| `operation` | `SUM`, `ASUM`, `SUMSQ`, `MEAN` | `SUM` |" in sections["Reduction"]
    assert "`softmax_param`: see [Softmax](#softmax)." in sections["SoftmaxWithLoss"]
    assert "| `ignore_label` | int32 |  |" in sections["LossParameter"]
