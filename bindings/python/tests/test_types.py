"""Types: the stubs are those of the extension, and what uses them is checked strictly. Also what a user sees with `help`."""

import dataclasses
import inspect
import subprocess
import sys

import anatomix
import pytest

from conftest import ROOT

HERE = ROOT / "bindings/python"

USE = """
import numpy as np
import anatomix

engine: anatomix.Engine = anatomix.Engine.open("bundle", threads=1, log=print)
radiograph = anatomix.Radiograph.from_array(np.zeros((64, 64), np.uint16), bits_stored=12)
study = engine.study(radiograph, deadline=2.0, cancel=anatomix.CancelHandle())
left: float = study.structures[0].box.x0
for piece in study.stream("Where?", max_tokens=3, stop=["."]):
    piece.upper()
answer: anatomix.Answer = study.stream(task="report").answer
rows: list[anatomix.Grounding] = list(study.ask(anatomix.Question("Where?", follow_up=True)).groundings)
for outcome in engine.studies(["a.dcm", radiograph]):
    if isinstance(outcome, anatomix.Error):
        outcome.code.upper()
    else:
        outcome.ask_many(["a", anatomix.Question("b")])
"""

WRONG = {
    'anatomix.Engine.open("bundle", threads="1")': "arg-type",
    'anatomix.Radiograph.from_array(np.zeros((64, 64), np.float32))': "arg-type",
    'study.ask("Where?", max_token=3)': "call-arg",
    "study.structures[0].box.x2": "attr-defined",
    "engine.study(3)": "arg-type",
    "study.width = 3": "misc",
}


def mypy(*arguments):
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE)


def test_what_uses_the_package_is_checked(tmp_path):
    use = tmp_path / "use.py"
    use.write_text(USE)
    done = mypy("-p", "anatomix", "--python-version", "3.10")
    assert done.returncode == 0, done.stdout
    done = mypy(use, ROOT / "examples/python/minimal.py")
    assert done.returncode == 0, done.stdout
    use.write_text(USE + "\n".join(WRONG))
    found = mypy(use).stdout.splitlines()
    assert [line.rsplit("[", 1)[1].rstrip("]") for line in found if ": error:" in line] == list(WRONG.values()), "\n".join(found)


def test_the_stubs_are_those_of_the_extension():
    done = subprocess.run([sys.executable, "-m", "mypy.stubtest", "anatomix"], capture_output=True, text=True, check=False, cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [name for name in anatomix.__all__ if inspect.isclass(getattr(anatomix, name))])
def test_everything_public_is_documented(name):
    item = getattr(anatomix, name)
    assert item.__doc__ and item.__module__.startswith("anatomix")
    members = {key: value for key, value in vars(item).items() if not key.startswith("_")}
    # Fields of plain data are described together.
    described = dataclasses.is_dataclass(item) or issubclass(item, (Exception, tuple))
    assert described or [key for key, value in members.items() if not value.__doc__] == []
    assert not any(len(line) > 140 for line in item.__doc__.splitlines())
