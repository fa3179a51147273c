"""What receives DICOM objects: validators and a real archive."""

import io
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest


@pytest.fixture
def changed(succeed, run, phantom_dicom, tmp_path):
    """Perceives the phantom with a changed header, and returns the program's result and the path of the document that it wrote."""

    def changed(change, *options, form="--sr"):
        source, report = tmp_path / "changed.dcm", tmp_path / "changed.out.dcm"
        report.unlink(missing_ok=True)
        dataset = pydicom.dcmread(phantom_dicom)
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
        pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
        change(dataset)
        dataset.save_as(source)
        return run("perceive", source, "--json", form, report, *options), report

    kept = pydicom.config.settings.reading_validation_mode
    yield changed
    pydicom.config.settings.reading_validation_mode = kept
    pydicom.config.settings.writing_validation_mode = None


def tool(name: str, package: str) -> str:
    """The path of a program, or the test is skipped."""
    return shutil.which(name) or pytest.skip(f"{name} (Debian's package {package}) is missing")


def validated(path: Path, kind: str = "Comprehensive") -> list[str]:
    """What dciodvfy finds wrong. It does not know private coding schemes, and warns of what the radiograph's own header lacks."""
    said = subprocess.run([tool("dciodvfy", "dicom3tools"), path], capture_output=True, text=True, timeout=60).stderr.splitlines()
    assert any(line.startswith(kind) for line in said), said
    known = ("<99ANATOMIX>", "needed to build DICOMDIR", "Referring Physician's Name")
    return [line for line in said if line.startswith(("Error", "Warning")) and not any(part in line for part in known)]


@dataclass
class Archive:
    """An Orthanc: its DICOM port and the address of its REST interface."""

    port: int
    address: str

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.address}/{path}", timeout=60) as answer:
            return answer.read()

    def keeps(self, images: dict[Path, Path]):
        """Sends objects with their images by C-STORE, and checks that the archive shows them in one study and gives them back unchanged."""
        sent = [tool("storescu", "dcmtk"), "-R", "-aec", "ORTHANC", "127.0.0.1", str(self.port), *dict.fromkeys(images.values()), *images]
        done = subprocess.run(sent, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        kept = {one["MainDicomTags"]["SOPInstanceUID"]: one for one in json.loads(self.get("instances?expand"))}
        for path, image in images.items():
            ours = pydicom.dcmread(path)
            found, picture = (kept[uid] for uid in (ours.SOPInstanceUID, pydicom.dcmread(image, stop_before_pixels=True).SOPInstanceUID))
            study = [json.loads(self.get(f"instances/{one['ID']}/study"))["ID"] for one in (found, picture)]
            assert study[0] == study[1], f"{path.name} is not in its image's study"
            assert pydicom.dcmread(io.BytesIO(self.get(f"instances/{found['ID']}/file"))) == ours


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """A running Orthanc with an empty store."""
    program = tool("Orthanc", "orthanc")
    folder = tmp_path_factory.mktemp("orthanc")
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        dicom, rest = (one.getsockname()[1] for one in (first, second))
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "DicomPort": dicom,
        "HttpPort": rest,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log, subprocess.Popen([program, folder / "orthanc.json"], stdout=log, stderr=log) as running:
        address = f"http://127.0.0.1:{rest}"
        try:
            for _ in range(150):
                try:
                    urllib.request.urlopen(f"{address}/system", timeout=5).close()
                    break
                except OSError:
                    assert running.poll() is None, (folder / "log").read_text()
                    time.sleep(0.2)
            yield Archive(dicom, address)
        finally:
            running.terminate()
