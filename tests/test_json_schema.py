"""What the programs print as JSON conforms to the schemas in docs/schema, and says nothing that they do not describe."""

import copy
import json
import os
import shutil

import pytest
from conftest import ROOT
from jsonschema import Draft202012Validator
from native import run as done

# Each with the JSON that it describes.
SCHEMAS = ["study", "answer", "bundle-info", "bundle-verify", "bundle-sign", "providers"]


def strict(schema):
    """The schema without room for further keys, which later versions may add."""
    schema = copy.deepcopy(schema)

    def close(part):
        if isinstance(part, dict):
            if "properties" in part:
                part["additionalProperties"] = False
            for value in part.values():
                close(value)
        elif isinstance(part, list):
            for value in part:
                close(value)

    close(schema)
    return schema


def schema(name: str) -> dict:
    return json.loads((ROOT / f"docs/schema/{name}.json").read_text())


@pytest.fixture(scope="module", params=SCHEMAS)
def named(request):
    return request.param, schema(request.param)


@pytest.fixture(scope="module")
def changed_bundle(bundle, tmp_path_factory):
    """A bundle whose manifest has what that of the reference bundle may leave out, in a folder whose name is not UTF-8."""
    folder = shutil.copytree(bundle, tmp_path_factory.mktemp("bundles") / os.fsdecode(b"bundle\xff"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["checked_on"] = ["another processor"]
    manifest["graphs"] = {"apm_precision": "fp32", "decoder_operators": "fused", "apm_tolerance": 0.001, "decoder_tolerance": 0.001}
    manifest["prompt"] = {"version": 2, "inputs": "VSB", "compact": True, "pool": 4, "system": "Read the image."}
    manifest["added_later"] = 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def printed(succeed, bundle, changed_bundle, results, tmp_path_factory):
    """Records by schema: those of results, of bundles, and of the machine."""
    installed = {
        "bundle-info": [succeed("bundle", "info", folder, "--json") for folder in (bundle, changed_bundle)],
        "bundle-verify": [succeed("bundle", "verify", folder, "--json") for folder in (bundle, changed_bundle)],
        "bundle-sign": [],
        "providers": [succeed("providers", "--json")],
    }
    if shutil.which("minisign"):
        keys = tmp_path_factory.mktemp("keys")
        secret, public = keys / "vendor.key", keys / "vendor.pub"
        done(["minisign", "-G", "-W", "-s", secret, "-p", public])
        signed = shutil.copytree(bundle, keys / "bundle")
        installed["bundle-sign"] += [succeed("bundle", "sign", signed, "--key", secret, "--json")]
        installed["bundle-verify"] += [succeed("bundle", "verify", signed, "--json", "--public-key", public)]
    return results | {name: [json.loads(line) for line in lines] for name, lines in installed.items()}


@pytest.fixture(scope="module")
def results(succeed, phantom_dicom, radiographs, tmp_path_factory):
    """Records by schema: of a phantom, of real radiographs with and without flags, and of a saved study."""
    chest, extremity, saved = radiographs / "RG1_UNCI.dcm", radiographs / "RG3_UNCI.dcm", tmp_path_factory.mktemp("saved") / "chest.study"
    studies = succeed("perceive", phantom_dicom, chest, extremity, "--json")
    answers = [
        succeed("ask", phantom_dicom, "Where is the left lung?", "Is there an effusion?", "--json", "--log-probabilities", "--save", saved),
        succeed("ask", saved, "pleural effusion", "--task", "phrase_grounding", "--json"),
        succeed("report", chest, "--json", "--max-tokens", "3"),
        succeed("report", extremity, "--json", "--accept-flags", "--stop", "."),
    ]
    return {name: [json.loads(line) for line in lines.splitlines()] for name, lines in (("study", studies), ("answer", "".join(answers)))}


def recorded(printed, name):
    return printed[name] or pytest.skip("minisign is missing; `make minisign` installs it as root")


def test_records_conform_and_have_no_other_keys(named, printed):
    name, schema = named
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(strict(schema))
    for record in recorded(printed, name):
        assert [error.message for error in validator.iter_errors(record)] == []


def test_the_records_are_of_many_kinds(printed):
    """Otherwise the schemas would be tested with less than they describe."""
    studies, answers = printed["study"], printed["answer"]
    assert len(studies) == 3 and len(answers) == 5
    assert any(study["flags"] for study in studies) and any(answer["flags"] for answer in answers)
    assert {answer["task"] for answer in answers} == {None, "phrase_grounding", "report"}
    assert {"end_of_turn", "max_tokens", "stop_text"} <= {answer["finish"] for answer in answers}
    assert any(grounding["boxes"] for answer in answers for grounding in answer["groundings"])
    assert any("log_probabilities" in answer for answer in answers)
    plain, changed = printed["bundle-info"]
    assert changed["notes"] and changed["manifest"].keys() - plain["manifest"].keys() == {"graphs"}
    assert changed["folder"].endswith("/bundle\ufffd")
    assert [one["signed"] for one in printed["bundle-verify"]] in ([False, False], [False, False, True])
    assert {one["available"] for one in printed["providers"][0]["providers"]} == {True, False}


def test_every_key_is_described_and_needed(named, printed):
    """A record that lacks a key, or has a value of another kind, does not conform."""
    name, schema = named
    validator, record = Draft202012Validator(schema), recorded(printed, name)[0]
    for key, value in record.items():
        assert schema["properties"][key].get("description"), key
        if key in schema["required"]:
            assert not validator.is_valid({other: kept for other, kept in record.items() if other != key}), key
        wrong = {} if isinstance(value, (list, str, int)) or value is None else []
        assert not validator.is_valid({**record, key: wrong}), key
    assert set(schema["required"]) | {"log_probabilities"} == set(record) | {"log_probabilities"}
    # Later versions may add keys.
    assert validator.is_valid({**record, "added": 1})
