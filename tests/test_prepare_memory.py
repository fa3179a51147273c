"""The memory of `anatomix-trainer prepare` over tables and lists of 200,000 rows each."""

import json

from conftest import ROOT, needed
from records import LABELS
from scale import watched

MIB = 1 << 20
COUNTS = (1_000, 200_000)
# Of a row of each table and list: of an image with its labels, a box and a conversation.
MOST = 2_500


def sources(folder, count):
    """Tables and lists as published. Their images are missing, as in a download that has just begun."""
    mimic, vindr, radialog = (folder / name for name in ("mimic", "vindr/annotations", "radialog"))
    for path in (mimic, vindr, radialog):
        path.mkdir(parents=True)
    own = [(f"{number:08x}-{'0123abcd' * 4}", 50_000_000 + number, 10_000_000 + number // 3) for number in range(count)]
    with (mimic / "mimic-cxr-2.0.0-split.csv").open("w") as file:
        file.write("dicom_id,study_id,subject_id,split\n")
        file.writelines(f"{image},{study},{patient},train\n" for image, study, patient in own)
    with (mimic / "mimic-cxr-2.0.0-chexpert.csv").open("w") as file:
        file.write(",".join(["subject_id", "study_id", *LABELS]) + "\n")
        file.writelines(f"{patient},{study}{',1.0,,0.0,-1.0' + ',' * 10}\n" for _, study, patient in own)
    with (vindr / "annotations_train.csv").open("w") as file:
        file.write("image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n")
        file.writelines(f"{number // 9:032x},R{number % 3},Cardiomegaly,{number % 9},2,300.5,400.25\n" for number in range(count))
    (vindr / "annotations_test.csv").write_text("image_id,class_name,x_min,y_min,x_max,y_max\n")
    turns = [{"from": "human", "value": "<image> Is there a pleural effusion?"}, {"from": "gpt", "value": "Yes, on the right side."}]
    with (radialog / "mimic_cxr_instruct_llava_v2.json").open("w") as file:
        for number, (image, study, patient) in enumerate(own):
            entry = {"id": number, "image": f"p/{patient}/s{study}/{image}.jpg", "conversations": turns, "task_type": "VQA"}
            file.write(("[" if number == 0 else ",\n") + json.dumps(entry))
        file.write("]")
    names = {"mimic_cxr_jpg": "mimic", "vindr_cxr": "vindr", "radialog_instruct": "radialog"}
    lines = "".join(f'{name} = "{path}"\n' for name, path in names.items())
    (folder / "prepare.toml").write_text("[sources]\n" + lines)


def test_memory_grows_with_rows_only_as_far_as_their_contents(tmp_path):
    program, peaks = needed(ROOT / "target/release/anatomix-trainer", "trainer"), []
    for count in COUNTS:
        folder = tmp_path / str(count)
        sources(folder, count)
        said = (tmp_path / "said").open("w+")
        command = [program, "prepare", "--config", folder / "prepare.toml", "--out", folder / "out"]
        code, seconds, peak = watched(*command, stdout=said, stderr=said)
        said.seek(0)
        assert code == 0, said.read()
        summary = json.loads((folder / "out/prepared.json").read_text())
        # All images are missing; of each kind of damage the first thousand are listed.
        assert len((folder / "out/skipped.jsonl").read_text().splitlines()) <= 5_000, summary
        peaks.append(peak)
        print(f"{count} rows of each: {seconds} s, {peak // MIB} MiB")
    a_row = (peaks[1] - peaks[0]) / (COUNTS[1] - COUNTS[0])
    print(f"{a_row:.0f} bytes a row")
    assert a_row < MOST
