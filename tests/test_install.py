"""The tarball of `make dist`: what is in it, and that programs in C and C++ are built and run with nothing but it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zlib
from pathlib import Path

import abi
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parent.parent
# The environment of someone who has a compiler and not this repository.
BARE = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
CMAKE = Path(sys.executable).parent / "cmake"


def run(*command, env=BARE, cwd="/", fails=False):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env, cwd=cwd, timeout=600, check=False)
    assert (done.returncode != 0) == fails, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr if fails else done.stdout


def make(*arguments, fails=False, env=os.environ):
    """`make` with what `make build` left in target/."""
    return run("make", "--no-print-directory", "--old-file=build", *arguments, env=env, cwd=ROOT, fails=fails)


@pytest.fixture(scope="module")
def tarball(anatomix):
    assert anatomix.exists()
    make("sbom", "dist")
    [found] = (ROOT / "build/dist").glob("anatomix-*.tar.gz")
    return found


@pytest.fixture(scope="module")
def prefix(tarball, tmp_path_factory):
    """The unpacked folder, which was moved afterwards."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(tarball) as archive:
        archive.extractall(folder, filter="data")
    [unpacked] = folder.iterdir()
    return unpacked.rename(tmp_path_factory.mktemp("vendor") / "a product")


@pytest.fixture(scope="module")
def version():
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]


@pytest.fixture(scope="module")
def data(prefix, tmp_path_factory):
    """The arguments of the example's programs: bundle and radiograph, away from the prefix."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copytree(prefix / "share/anatomix/reference-bundle", folder / "bundle")
    return [folder / "bundle", shutil.copy(prefix / "share/anatomix/phantom.dcm", folder)]


@pytest.fixture(scope="module")
def report(prefix):
    """The report that the installed program writes, with nothing named: its bundle and ONNX Runtime are found from where it is."""
    return run(prefix / "bin/anatomix", "report", prefix / "share/anatomix/phantom.dcm", "--json")


def text(report):
    return json.loads(report)["text"].strip()


def elf(path):
    """Sections, the dynamic section's names, exported names and needed symbol versions of a shared library or program."""
    with path.open("rb") as file:
        binary = ELFFile(file)
        dynamic = next(section for section in binary.iter_sections() if isinstance(section, DynamicSection))
        tags = [(tag.entry.d_tag, getattr(tag, "soname", None) or getattr(tag, "needed", None)) for tag in dynamic.iter_tags()]
        symbols = binary.get_section_by_name(".dynsym").iter_symbols()
        exported = {s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF" and s["st_info"]["bind"] != "STB_LOCAL"}
        needed = [v.name for _, versions in binary.get_section_by_name(".gnu.version_r").iter_versions() for v in versions]
        return [section.name for section in binary.iter_sections()], tags, exported, needed


def test_the_tarball_is_plain_and_reproducible(tarball, version):
    assert tarball.name == f"anatomix-{version}-{os.uname().machine}-linux.tar.gz"
    moment = int(run("git", "log", "-1", "--format=%ct", cwd=ROOT, env=os.environ))
    with tarfile.open(tarball) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == sorted((member.name for member in members), key=lambda name: name.split("/"))
    top = tarball.name.removesuffix(".tar.gz")
    for member in members:
        assert member.name.split("/")[0] == top and ".." not in member.name
        assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", moment), member.name
        assert member.isfile() or member.isdir() or (member.issym() and "/" not in member.linkname), member.name
        assert member.issym() or not member.mode & 0o7022, f"{member.name} may be written by others"
    # Made once more, by someone with other habits, it has the same bytes.
    before = hashlib.sha256(tarball.read_bytes()).hexdigest()
    assert (tarball.parent / f"{tarball.name}.sha256").read_text() == f"{before}  {tarball.name}\n"
    again = ["bash", "-c", "umask 077; make --old-file=build sbom dist"]
    run(*again, env={**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C"}, cwd=ROOT)
    assert hashlib.sha256(tarball.read_bytes()).hexdigest() == before


def test_the_libraries_have_versioned_names(prefix, version):
    lib = prefix / "lib"
    for chain in [
        ["libanatomix.so", "libanatomix.so.0", f"libanatomix.so.{version}"],
        ["libonnxruntime.so", "libonnxruntime.so.1", os.path.basename(os.readlink(ROOT / ".deps/onnxruntime/libonnxruntime.so"))],
    ]:
        for link, target in zip(chain, chain[1:]):
            assert os.readlink(lib / link) == target
        sections, tags, _, _ = elf(lib / chain[-1])
        assert ("DT_SONAME", chain[1]) in tags
        assert not {".symtab", ".debug_info", ".debug_line"} & set(sections)
        # ONNX Runtime is loaded, not linked.
        assert not [name for tag, name in tags if tag == "DT_NEEDED" and "anatomix" in name or "onnx" in str(name) and tag == "DT_NEEDED"]
    assert ".symtab" not in elf(prefix / "bin/anatomix")[0]


def test_the_library_exports_the_c_interface_alone(prefix):
    listed = {name.split()[1] for name in abi.read(prefix / "share/anatomix/anatomix.abi") if name.startswith("function ")}
    assert elf(prefix / "lib/libanatomix.so")[2] == listed


def test_no_file_names_the_machine_that_built_it(prefix):
    folders = {str(ROOT), str(Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))), f"{Path.home()}/"}
    for path in prefix.rglob("*"):
        if path.is_file() and not path.name.startswith("libonnxruntime"):
            content = path.read_bytes()
            assert not [folder for folder in folders if folder.encode() in content], path


def test_no_newer_glibc_is_needed_than_the_documents_say(prefix):
    [stated] = re.findall(r"glibc (2\.\d+) or newer", (ROOT / "docs/install.md").read_text())
    for file in ["bin/anatomix", "lib/libanatomix.so", "lib/libonnxruntime.so"]:
        needed = [int(name.split(".")[1]) for name in elf(prefix / file)[3] if name.startswith("GLIBC_2.")]
        assert needed and max(needed) <= int(stated.split(".")[1]), f"{file} needs glibc 2.{max(needed)}"


def test_the_bill_of_materials_is_valid_and_complete(prefix):
    text = (prefix / "share/anatomix/sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    bom = json.loads(text)
    components = {component["name"]: component for component in bom["components"]}
    library = hashlib.sha256((prefix / "lib/libonnxruntime.so").read_bytes()).hexdigest()
    assert components["onnxruntime"]["hashes"] == [{"alg": "SHA-256", "content": library}]
    assert {"ort", "tokenizers", "clap", "rust-std"} <= components.keys() and not {"tch", "proptest", "syn"} & components.keys()
    references = {component["bom-ref"] for component in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
    assert {entry["ref"] for entry in bom["dependencies"]} == references
    assert {needed for entry in bom["dependencies"] for needed in entry.get("dependsOn", [])} <= references
    # Only what is fetched has a hash; all crates are fetched except the SDK.
    assert [name for name, component in components.items() if "hashes" not in component] == ["rust-std"]


@pytest.mark.parametrize("file", ["bin/anatomix", "lib/libanatomix.so"])
def test_the_binaries_name_their_crates_as_cargo_auditable_does(prefix, file):
    with (prefix / file).open("rb") as opened:
        section = ELFFile(opened).get_section_by_name(".dep-v0")
        packages = json.loads(zlib.decompress(section.data()))["packages"]
    bom = json.loads((prefix / "share/anatomix/sbom.cdx.json").read_text())
    linked = {part["bom-ref"] for part in bom["components"] if part["bom-ref"].startswith("pkg:cargo/")}
    [root] = [package for package in packages if package.get("root")]
    assert (root["name"], root["source"]) == ("anatomix", "local")
    assert {f"pkg:cargo/{one['name']}@{one['version']}" for one in packages if one is not root} == linked
    assert {one["source"] for one in packages if one is not root} == {"crates.io"}
    direct = {packages[index]["name"] for index in root["dependencies"]}
    assert {"ort", "tokenizers", "dicom-object"} <= direct and "ort-sys" not in direct
    assert all(one.get("dependencies", []) == sorted(set(one.get("dependencies", []))) for one in packages)


def test_manual_pages_and_completions_are_installed(prefix):
    pages = sorted((prefix / "share/man/man1").iterdir())
    commands = ["ask", "bundle", "bundle-info", "bundle-sign", "bundle-verify", "chat", "completions", "perceive", "providers", "report"]
    assert {page.name for page in pages} == {"anatomix.1", *(f"anatomix-{command}.1" for command in commands)}
    for page in pages:
        text = page.read_text()
        assert all(f".SH {section}\n" in text for section in ["NAME", "OPTIONS", "EXAMPLES", '"EXIT STATUS"']), page
        if shutil.which("groff"):
            done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", page], capture_output=True, text=True, check=True)
            assert "anatomix" in done.stdout and not done.stderr, done.stderr
    completions = prefix / "share/bash-completion/completions/anatomix"
    assert run("bash", "-c", 'source "$1" && complete -p anatomix', "bash", completions).endswith(" anatomix\n")
    assert (prefix / "share/zsh/site-functions/_anatomix").read_text().startswith("#compdef anatomix")
    assert "complete -c anatomix" in (prefix / "share/fish/vendor_completions.d/anatomix.fish").read_text()


def test_the_licences_are_those_of_the_linked_crates(prefix):
    """`make licences` renews packaging/THIRD-PARTY.txt when dependencies change."""
    pages = (prefix / "share/doc/anatomix/THIRD-PARTY.txt").read_text()
    listed = set(re.findall(r"^([\w-]+ \d[^ :]*): ", pages, re.MULTILINE))
    bom = json.loads((prefix / "share/anatomix/sbom.cdx.json").read_text())
    linked = {f"{part['name']} {part['version']}" for part in bom["components"] if part["bom-ref"].startswith("pkg:cargo/")}
    lock = {f"{part['name']} {part['version']}" for part in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    assert linked - listed == set() and listed - lock == set(), "dependencies changed: run `make licences` and commit what it writes"
    doc = prefix / "share/doc/anatomix"
    assert "Microsoft" in (doc / "onnxruntime/LICENSE").read_text() and (doc / "onnxruntime/ThirdPartyNotices.txt").stat().st_size > 100_000
    assert all((doc / name).exists() for name in ["LICENSE-MIT", "LICENSE-APACHE", "DejaVuSans.LICENSE", "install.md"])


PROBE = r"""
#include <anatomix.h>
#include <stdio.h>
#include <string.h>

/* Opens a bundle and prints which files were loaded. */
int main(int argc, char **argv) {
    anx_engine *engine = NULL;
    anx_error *error = NULL;
    char line[4096];
    FILE *maps;
    if (argc != 2 || anx_engine_open(argv[1], NULL, &engine, &error) != ANX_OK) {
        puts(error ? anx_error_message(error) : "usage");
        return 1;
    }
    maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps)) {
        if (strstr(line, "r-xp") && strchr(line, '/')) fputs(strchr(line, '/'), stdout);
    }
    anx_engine_free(engine);
    return 0;
}
"""


def loaded(program, bundle):
    lines = run(program, bundle).splitlines()
    return sorted(line for line in lines if "anatomix" in Path(line).name or "onnxruntime" in line)


def flags(prefix, *wanted):
    """What pkg-config says, as arguments."""
    command = ["sh", "-c", f'pkg-config {" ".join(wanted)} anatomix | xargs -n 1 printf "%s\\n"']
    return run(*command, env={**BARE, "PKG_CONFIG_PATH": prefix / "lib/pkgconfig"}).splitlines()


def test_programs_are_built_by_pkg_config(prefix, data, report, version, tmp_path):
    assert flags(prefix, "--modversion") == [version]
    found = flags(prefix, "--cflags", "--libs")
    folders = [Path(flag[2:]).resolve() for flag in found if flag[:2] in ("-I", "-L")]
    assert folders == [prefix / "include", prefix / "lib"]
    example, link = prefix / "share/anatomix/example", [*found, f"-Wl,-rpath,{prefix}/lib"]
    run("gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", example / "report.c", "-o", tmp_path / "c", *link)
    run("g++", "-std=c++17", example / "minimal.cpp", "-o", tmp_path / "cpp", *link)
    assert run(tmp_path / "c", *data).strip() == text(report)
    assert run(tmp_path / "cpp", *data).startswith(text(report))


def test_programs_are_built_by_cmake_and_shipped(prefix, data, report, tmp_path):
    build, shipped = tmp_path / "build", tmp_path / "shipped"
    run(CMAKE, "-S", prefix / "share/anatomix/example", "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    run(CMAKE, "--build", build)
    assert run(build / "report_c", *data).strip() == text(report)
    assert run(build / "report_cpp", *data).startswith(text(report))
    run(CMAKE, "--install", build, "--prefix", shipped)
    # What was shipped runs without the folder that it was built against.
    away = prefix.rename(prefix.parent / "away")
    try:
        assert run(shipped / "bin/report_c", *data).strip() == text(report)
        assert run(shipped / "bin/report_cpp", *data).startswith(text(report))
        (out := tmp_path / "out").mkdir()
        assert text(report) in run(shipped / "bin/complete", data[0], out, data[1])
        assert sorted(file.suffix for file in out.iterdir()) == [".dcm", ".json", ".png"]
    finally:
        away.rename(prefix)


def test_the_guide_leads_from_the_tarball_to_a_report(prefix, data, tmp_path):
    """Its program and its CMakeLists.txt, as docs/guides/link.md has them."""
    page = (ROOT / "docs/guides/link.md").read_text()
    for name in ["report.cpp", "CMakeLists.txt"]:
        [block] = re.findall(rf"^`{re.escape(name)}`:\n\n```\w+\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        (tmp_path / name).write_text(block)
    run(CMAKE, "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror")
    run(CMAKE, "--build", tmp_path / "build")
    run(CMAKE, "--install", tmp_path / "build", "--prefix", tmp_path / "product")
    run(tmp_path / "product/bin/report", *data, tmp_path / "report.dcm")
    run(prefix / "bin/anatomix", "report", data[1], "--sr", tmp_path / "expected.dcm")
    assert (tmp_path / "report.dcm").read_bytes() == (tmp_path / "expected.dcm").read_bytes()
    assert "not a DICOM file" in run(tmp_path / "product/bin/report", data[0], ROOT / "docs/overlay.png", tmp_path / "none.dcm", fails=True)


def test_the_library_finds_onnxruntime_beside_itself(prefix, data, version, tmp_path):
    source, program = tmp_path / "probe.c", tmp_path / "probe"
    source.write_text(PROBE)
    links = tmp_path / "links"
    links.mkdir()
    (links / "libanatomix.so.0").symlink_to(prefix / "lib/libanatomix.so")
    expected = sorted(str((prefix / "lib" / name).resolve()) for name in ["libanatomix.so", "libonnxruntime.so"])
    assert expected[0].endswith(f"/libanatomix.so.{version}")
    for folder in [prefix / "lib", links]:
        run("gcc", source, "-o", program, *flags(prefix, "--cflags", "--libs"), f"-Wl,-rpath,{folder}")
        assert loaded(program, data[0]) == expected
    # Without it, the message names where it was looked for.
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(prefix / "lib/libanatomix.so", alone / "libanatomix.so.0")
    run("gcc", source, "-o", program, *flags(prefix, "--cflags", "--libs"), f"-Wl,-rpath,{alone}")
    done = subprocess.run([program, data[0]], env=BARE, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"tried {alone}/libonnxruntime.so" in done.stdout


def test_find_package_compares_versions(prefix, version, tmp_path):
    major, minor, _ = version.split(".")
    right = ["", version, f"{major}.{minor}", major, f"{major}.{minor}...{int(major) + 1}", f"{version}...{version}"]
    wrong = ["99", f"{major}.{int(minor) + 1}", f"{version}.1", f"{int(major) + 1}.0...{int(major) + 2}", f"{major}.0...<{version}"]
    lines = ["cmake_minimum_required(VERSION 3.19)", "project(asking LANGUAGES NONE)"]
    for asked in [*right, *wrong]:
        lines += ["unset(anatomix_DIR CACHE)", f"find_package(anatomix {asked} QUIET)", f'message("{asked}=${{anatomix_FOUND}}")']
    (tmp_path / "CMakeLists.txt").write_text("\n".join(lines))
    command = [CMAKE, "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}"]
    done = subprocess.run(command, env=BARE, capture_output=True, text=True, check=True)
    found = dict(line.split("=") for line in done.stderr.splitlines() if "=" in line)
    assert found == {asked: "1" for asked in right} | {asked: "0" for asked in wrong}


def test_find_package_serves_a_project_in_c_alone_and_names_what_is_missing(prefix, tmp_path):
    project = ["cmake_minimum_required(VERSION 3.16)", "project(plain LANGUAGES C)", "find_package(anatomix REQUIRED)"]
    project += ["add_executable(plain plain.c)", "target_link_libraries(plain anatomix::anatomix)"]
    (tmp_path / "CMakeLists.txt").write_text("\n".join(project))
    shutil.copy(prefix / "share/anatomix/example/report.c", tmp_path / "plain.c")
    run(CMAKE, "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run(CMAKE, "--build", tmp_path / "build")
    copy = shutil.copytree(prefix / "lib/cmake", tmp_path / "cut/lib/cmake")
    message = run(CMAKE, "-S", tmp_path, "-B", tmp_path / "cut/build", f"-Danatomix_DIR={copy}/anatomix", fails=True)
    assert re.search(r"libanatomix\.so\.\S+\s+is\s+missing", message)


def test_make_install_gives_the_same_folder(prefix, tmp_path):
    stage, place = tmp_path / "stage", "/opt/vendor/anatomix"
    # The second time it replaces what is there.
    for _ in range(2):
        make("install", f"DESTDIR={stage}", f"PREFIX={place}")
    installed = Path(f"{stage}{place}")
    assert [path for path in stage.iterdir()] == [stage / "opt"]
    listing = lambda top: {str(p.relative_to(top)): p.is_symlink() or p.is_dir() or p.read_bytes() for p in top.rglob("*")}  # noqa: E731
    assert listing(installed) == listing(prefix)


@pytest.mark.parametrize("place", ["/proc/anatomix", "/dev/null/anatomix"])
def test_a_prefix_that_cannot_be_written_is_a_clear_error(tarball, place):
    message = make("install", f"PREFIX={place}", fails=True)
    assert f"error: {place} cannot be written; choose another PREFIX" in message
    assert message.count("\n") == 2, "more than the error and make's own line"


def test_what_is_not_built_is_named(tmp_path):
    message = make("install", f"PREFIX={tmp_path}/prefix", f"RELEASE={tmp_path}", fails=True)
    assert f"error: {tmp_path}/anatomix is missing; run `make build` first" in message and not (tmp_path / "prefix").exists()


def test_an_installation_may_be_read_only(prefix, data, report, tmp_path):
    """In a mount namespace of its own, because root may write everywhere else."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a folder read-only")
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && ! touch "$1/x" 2>/dev/null && "$1/bin/anatomix" report "$2" --json'
    output = run("unshare", "--mount", "sh", "-c", script, "sh", prefix, data[1])
    assert text(output) == text(report)


def test_the_tarball_is_signed_by_minisign(tarball, tmp_path):
    if shutil.which("minisign") is None:
        pytest.skip("minisign is missing; `make minisign` installs it as root")
    key, public = tmp_path / "key", tmp_path / "key.pub"
    run("minisign", "-G", "-W", "-s", key, "-p", public)
    make("sign", f"KEY={key}")
    signature = tarball.with_name(f"{tarball.name}.minisig")
    verify = ["minisign", "-V", "-p", public, "-m"]
    assert f"Trusted comment: {tarball.name}" in run(*verify, tarball)
    altered = Path(shutil.copy(tarball, tmp_path))
    shutil.copy(signature, tmp_path)
    with altered.open("r+b") as file:
        file.write(b"\0")
    run(*verify, altered, fails=True)
    assert "make sign KEY=FILE" in make("sign", fails=True)
