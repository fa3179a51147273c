"""Evidence: where the sentences of an answer come from."""

import json
import re
import subprocess

import pytest

from conftest import ROOT

PHANTOMS = 240


def test_sentences_with_support_are_right_more_often(trainer, bundle, tmp_path):
    """On phantoms the truth is known: phantoms with equal findings have equal reports, so that a sentence that the true report lacks is
    wrong. Prints both shares with `pytest -s`."""
    data = tmp_path / "phantoms"
    trainer("phantom", "--out", data, "--count", PHANTOMS, "--seed", 1_500_000, "--dicom-every", 0)
    figures = trainer("evaluate", "--bundle", bundle, "--data", data, "--tasks", "report", "--json")
    evidence = json.loads(figures)["evidence"]
    print(evidence)
    counts = {support: of["count"] for support, of in evidence.items()}
    assert sum(counts.values()) > 5 * PHANTOMS and counts["supported"] > sum(counts.values()) / 2, counts
    wrong = {support: of["wrong"] * of["count"] for support, of in evidence.items()}
    doubted = (wrong["contradicted"] + wrong["unsupported"]) / (counts["contradicted"] + counts["unsupported"])
    assert doubted > 3 * evidence["supported"]["wrong"], evidence
    assert counts["unsupported"] >= 5 and evidence["unsupported"]["wrong"] > 10 * evidence["supported"]["wrong"], evidence


@pytest.mark.parametrize("question", ["Where is the left lung?", "Is there a pleural effusion?"])
def test_evidence_refers_to_the_study(anatomix, bundle, phantom_dicom, question):
    def printed(*arguments):
        command = [anatomix, *arguments, "--bundle", bundle, "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)

    study, answer = printed("perceive", phantom_dicom), printed("ask", phantom_dicom, question)
    assert " ".join(of["sentence"] for of in answer["evidence"]).split() == answer["text"].split()
    for of in answer["evidence"]:
        assert 0 < of["probability"] <= 1 and all(0 <= index < len(answer["groundings"]) for index in of["groundings"])
        assert of["support"] == "not_assessed" or of["structures"] or of["support"] == "unsupported"
        for found in of["structures"]:
            structure = study["structures"][found["index"]]
            assert {key: found[key] for key in ["name", "similarity", "margin", "box"]} == {
                key: structure[key] for key in ["name", "similarity", "margin", "box"]
            }
    assert answer["evidence"][0]["support"] == "supported"


@pytest.mark.parametrize("command", [["report"], ["ask", "Where is the pleural effusion?"]])
def test_doubted_sentences_are_warned_of(run, phantom_dicom, perceive, command):
    arguments = [command[0], phantom_dicom, *command[1:]]
    answer, structures = json.loads(run(*arguments, "--json").stdout), perceive(phantom_dicom)["structures"]
    warnings = [line for line in run(*arguments).stderr.splitlines() if re.match("warning: (contradicted|unsupported): ", line)]
    doubted = [of for of in answer["evidence"] if of["support"] in ["contradicted", "unsupported"]]
    assert len(warnings) == len(doubted) > 0, warnings
    for of, warning in zip(doubted, warnings, strict=True):
        assert warning.startswith(f'warning: {of["support"]}: "{of["sentence"].strip()}" ('), warning
        against = [structures[found["index"]] for found in of["structures"] if found["relation"] == "contradicts"]
        named = [f'"{structure["sentence"]}" at (' in warning for structure in against]
        assert named == [index < 3 for index in range(len(against))], (warning, against)
        assert ("perceived: " in warning) == (of["support"] == "contradicted"), warning
    assert "warning: contradicted" not in run(*arguments, "--json").stderr
