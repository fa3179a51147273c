"""Prints the software bill of materials of the shared library, in CycloneDX: the crates that are linked, as `cargo tree` resolves them, and
ONNX Runtime, which is shipped beside the library.

    packaging/sbom.py FEATURES TARGET ONNXRUNTIME_VERSION ONNXRUNTIME_LIBRARY

The time is that of SOURCE_DATE_EPOCH, so that equal sources give equal bytes.
"""

import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path


def cargo(*arguments):
    command = [os.environ.get("CARGO", "cargo"), *arguments, "--locked"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(features, target):
    """The crates that are linked, by (name, version), each with those that it needs; and the root. Macros and build scripts run on the
    machine that builds, and are not part of the library."""
    tree = ["tree", "-p", "anatomix", "--features", features, "--target", target, "--edges", "normal,no-proc-macro", "--prefix", "depth"]
    needs, path = {}, []
    for line in cargo(*tree).splitlines():
        depth, name, version = re.match(r"(\d+)(\S+) v(\S+)", line).groups()
        del path[int(depth) :]
        path.append((name, version))
        needs.setdefault(path[-1], set())
        if len(path) > 1:
            needs[path[-2]].add(path[-1])
    return needs


def reference(crate):
    name, version = crate
    return f"pkg:cargo/{name}@{version}"


def component(crate, package, checksum):
    name, version = crate
    found = {
        "type": "library",
        "bom-ref": reference(crate),
        "name": name,
        "version": version,
        "purl": reference(crate),
        # Crates of before 2020 separate alternatives by a slash.
        "licenses": [{"expression": package["license"].replace("/", " OR ")}],
    }
    if package["description"]:
        found["description"] = " ".join(package["description"].split())
    if checksum:
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        found["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return found


def onnxruntime(version, library):
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/onnxruntime@{version}",
        "supplier": {"name": "Microsoft Corporation"},
        "name": "onnxruntime",
        "version": version,
        "description": f"ONNX Runtime, loaded at run time: {library.name}, whose hash this is, from the wheel",
        "purl": f"pkg:pypi/onnxruntime@{version}",
        "licenses": [{"license": {"id": "MIT"}}],
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(library.read_bytes()).hexdigest()}],
        "externalReferences": [{"type": "vcs", "url": "https://github.com/microsoft/onnxruntime"}],
    }


def standard_library():
    command = [os.environ.get("RUSTC", "rustc"), "--version"]
    release = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[1]
    return {
        "type": "library",
        "bom-ref": f"rust-std@{release}",
        "name": "rust-std",
        "version": release,
        "description": "Rust's standard library",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
        "externalReferences": [{"type": "vcs", "url": "https://github.com/rust-lang/rust"}],
    }


def main():
    features, target, version, library = sys.argv[1:]
    needs = linked(features, target)
    root = next(iter(needs))
    packages = {(p["name"], p["version"]): p for p in json.loads(cargo("metadata", "--all-features", "--format-version", "1"))["packages"]}
    lock = tomllib.loads(Path("Cargo.lock").read_text(encoding="utf-8"))
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
    components = [component(crate, packages[crate], checksums[crate]) for crate in sorted(needs)]
    main_component = next(c for c in components if c["bom-ref"] == reference(root))
    others = [c for c in components if c is not main_component] + [standard_library(), onnxruntime(version, Path(library))]
    beside = [c["bom-ref"] for c in others[-2:]]
    graph = [{"ref": reference(crate), "dependsOn": sorted(map(reference, needs[crate]))} for crate in sorted(needs)]
    next(entry for entry in graph if entry["ref"] == reference(root))["dependsOn"] += beside
    moment = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": f"{moment:%Y-%m-%dT%H:%M:%SZ}", "component": main_component},
        "components": others,
        "dependencies": graph + [{"ref": ref} for ref in beside],
    }
    bom["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bom)).urn
    json.dump(bom, sys.stdout, indent=1)
    print()


main()
