"""Writes the crates of a bill of materials as cargo-auditable embeds them in binaries: JSON, compressed by zlib, for the section `.dep-v0`,
which cargo-audit, Trivy, Syft and others read.

    packaging/audit.py BILL_OF_MATERIALS OUTPUT

packaging/install.sh puts the section into what it installs. cargo-auditable itself would be one more tool that `make build` has to compile,
and would name the same crates.
"""

import json
import sys
import zlib
from pathlib import Path

CARGO = "pkg:cargo/"


def main():
    bom, output = map(Path, sys.argv[1:])
    bom = json.loads(bom.read_text(encoding="utf-8"))
    root = bom["metadata"]["component"]
    crates = sorted(
        (one for one in [root, *bom["components"]] if one["bom-ref"].startswith(CARGO)),
        key=lambda one: (one["name"], one["version"]),
    )
    place = {one["bom-ref"]: index for index, one in enumerate(crates)}
    needs = {one["ref"]: sorted(place[ref] for ref in one.get("dependsOn", []) if ref in place) for one in bom["dependencies"]}
    packages = []
    for one in crates:
        package = {"name": one["name"], "version": one["version"], "source": "local" if one is root else "crates.io"}
        if needs[one["bom-ref"]]:
            package["dependencies"] = needs[one["bom-ref"]]
        if one is root:
            package["root"] = True
        packages.append(package)
    output.write_bytes(zlib.compress(json.dumps({"packages": packages}, separators=(",", ":")).encode(), 9))


main()
