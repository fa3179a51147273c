"""The pages about the C and C++ interfaces, which `make docs` makes of the headers."""

import shutil
import subprocess

import pytest


@pytest.mark.skipif(not shutil.which("doxygen"), reason="doxygen is missing")
def test_the_headers_pages_are_made_without_warnings(root, tmp_path):
    settings = f"@INCLUDE = packaging/Doxyfile\nOUTPUT_DIRECTORY = {tmp_path}\n"
    done = subprocess.run(["doxygen", "-"], input=settings, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pages = tmp_path / "c"
    assert "Asks a question and waits for the answer" in (pages / "classanatomix_1_1Study.html").read_text()
    assert "&lt;box&gt;" in (pages / "anatomix_8h.html").read_text()
