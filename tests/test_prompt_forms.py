"""Forms of the prompt: the context is written here again, from docs/bundle.md, and the decoder answers as in the SDK."""

import json
import re
import shutil

import pytest
from test_reference import Reader, near, pixels, reader, seen

__all__ = ["near", "pixels", "reader", "seen"]


class FormReader(Reader):
    """A reader of bundles whose prompt has any form."""

    def __init__(self, folder, short_names):
        super().__init__(folder)
        self.short_names = short_names

    def context(self, boxes, sentences) -> str:
        form = self.manifest["prompt"]
        inputs, compact = form.get("inputs", "VOSB"), form.get("compact", False)
        image = "<image_start>" + "<image>" * self.manifest["apm"]["patches"] + "<image_end>"
        text = "<bos><start_of_turn>user"
        text += f"\n{form['system']}\n" if "system" in form else ""
        if "V" in inputs:
            text += "\n" + image if compact else f"\nImage: \n\n{image}\n\n"
        return text + (self.compact(inputs, boxes, sentences) if compact else self.published(inputs, boxes, sentences))

    def published(self, inputs, boxes, sentences):
        if inputs == "V":
            return ""
        lines = ["\nLikely findings:"]
        for i, ((x0, y0, x1, y1), sentence) in enumerate(zip(boxes, sentences)):
            parts = {"O": f"emb:<emb><obj_{i}></emb>", "S": sentence, "B": f"box:<box>({x0},{y0}),({x1},{y1})</box>"}
            lines.append(" ".join(parts[letter] for letter in "OBS" if letter in inputs))
        return "\n".join(lines)

    def compact(self, inputs, boxes, sentences):
        entries = []
        for i, (x0, y0, x1, y1) in enumerate(boxes):
            entry = f"<obj_{i}>" if "O" in inputs else ""
            entries.append(entry + (f"<box>{x0},{y0},{x1},{y1}</box>" if "B" in inputs else ""))
        if "S" not in inputs:
            return "\nStructures:" + "".join(entries)
        found, healthy = [], []
        for entry, name, sentence in zip(entries, self.short_names, sentences):
            if sentence.endswith("is healthy."):
                healthy.append(entry + name)
            else:
                found.append(f"\n{entry}{name}: {sentence.partition(' shows ')[2].rstrip('.')}")
        text = "\nFindings:" + "".join(found) if found else ""
        return text + ("\nHealthy:" + ",".join(healthy) if healthy else "")


@pytest.fixture(scope="module")
def short_names(root) -> list[str]:
    table = re.search(r"const SHORT_NAMES: .*? = \[(.*?)\];", (root / "sdk/src/anatomy.rs").read_text(), re.DOTALL)
    return re.findall(r'"(.*?)"', table[1])


FORMS = [
    {"inputs": "V"},
    {"inputs": "VO"},
    {"inputs": "SB"},
    {"inputs": "VSB", "system": "Some of these findings can be wrong."},
    {"compact": True},
    {"inputs": "OB", "compact": True},
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
def test_answers(form, bundle, short_names, succeed, phantom_dicom, near, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"prompt": {"version": 2, **form}}))
    question = "What does the left lung show?"
    options = ["--unconstrained", "--max-tokens", "12", "--json", "--bundle", folder]
    answer = json.loads(succeed("ask", phantom_dicom, question, *options))
    [raw] = FormReader(folder, short_names).answers(near, [question], limit=12)
    # The weights were trained on the published form, so that the answer itself means nothing here.
    assert answer["raw"] == raw
    context, _ = FormReader(folder, short_names).prompt(near, question)
    assert answer["prefilled"] == len(context)
