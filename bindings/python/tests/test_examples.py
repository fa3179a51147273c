"""The examples run, and the notebook shows what it says."""

import subprocess
import sys

import anatomix
import matplotlib.image
import nbclient
import nbformat
import pytest

from conftest import BUNDLE, PHANTOM, ROOT

EXAMPLES = ROOT / "examples/python"


def test_the_minimal_example_runs():
    command = [sys.executable, EXAMPLES / "minimal.py", BUNDLE, PHANTOM]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 38 and lines[11].startswith("Left lung") and "left lung Box(x0=" in lines[-1].lower().replace("box(", "Box(")


@pytest.fixture
def folder(tmp_path):
    """Radiographs in several formats, one of them mirrored, and a file that is none."""
    radiograph = anatomix.Radiograph.open(PHANTOM)
    (tmp_path / "a.dcm").write_bytes(PHANTOM.read_bytes())
    matplotlib.image.imsave(tmp_path / "b.png", radiograph.intensities, cmap="gray", vmin=0, vmax=1)
    matplotlib.image.imsave(tmp_path / "c.jpg", radiograph.mirrored().intensities, cmap="gray", vmin=0, vmax=1)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no radiograph")
    return tmp_path


def test_the_notebook_runs(folder, monkeypatch):
    monkeypatch.setenv("BUNDLE", str(BUNDLE))
    monkeypatch.setenv("FOLDER", str(folder))
    notebook = nbformat.read(EXAMPLES / "folder.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the notebook is committed with outputs; clear them"
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    html = {name: "".join(output.get("data", {}).get("text/html", "") for output in found) for name, found in outputs.items()}
    assert "radiograph_format" in html["perceive"] and "broken.png" in html["perceive"]
    assert "4/4" in "".join(output.get("text", "") for output in outputs["perceive"])
    assert all(name in html["table"] for name in ("Left lung", "a.dcm", "b.png", "c.jpg"))
    assert "mirrored" in html["report"] and "report" in html["report"]
    assert any("image/png" in output.get("data", {}) for output in outputs["overlays"])
    assert "data:image/png;base64," in html["study"] and "data:image/png;base64," in html["answer"]
