"""The gate before an update of a bundle: `evaluate --baseline`."""

import json
import subprocess

from conftest import ROOT

PHANTOMS = 8
SEED = 2_500_000


def test_a_bundle_is_compared_with_a_baseline(trainer, bundle, tmp_path):
    trainer("phantom", "--out", tmp_path / "phantoms", "--count", PHANTOMS, "--seed", SEED, "--dicom-every", 0)
    evaluation = ["evaluate", "--bundle", bundle, "--data", tmp_path / "phantoms", "--tasks", "report", "--json"]
    figures = json.loads(trainer(*evaluation))
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(figures))
    again = json.loads(trainer(*evaluation, "--baseline", path, "--tolerance", 0))
    assert again["apm"] == figures["apm"]

    def refused(*arguments):
        path.write_text(json.dumps(figures))
        command = [ROOT / "target/release/anatomix-trainer", *evaluation, "--baseline", path, *arguments]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 1
        return done.stderr

    figures["apm"]["per_structure"]["Left lung"] += 0.02
    figures["tasks"]["report"]["rouge1"] += 0.02
    error = refused()
    assert "worse: apm.per_structure.Left lung: " in error and "worse: tasks.report.rouge1: " in error
    assert "2 figures are lower than in the baseline by more than 0.01" in error
    figures["images"] += 1
    assert "the same images" in refused("--tolerance", "0.5")
    assert "--tolerance is 2" in refused("--tolerance", "2")
