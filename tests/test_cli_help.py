"""What the command line says about itself: help, completions."""

import re
import subprocess

import pytest

COMMANDS = ["perceive", "ask", "chat", "report", "bundle", "bundle info", "bundle verify", "bundle sign", "providers", "completions"]
SHELLS = ["bash", "elvish", "fish", "powershell", "zsh"]


def test_all_commands_are_listed(succeed):
    listed = re.findall(r"^  (\w+) ", succeed("--help").split("Commands:\n")[1].split("\n\n")[0], re.MULTILINE)
    assert [*listed, "help"] == [*(name for name in COMMANDS if " " not in name), "help", "help"]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_examples_and_exit_codes(succeed, command):
    text = succeed(*command.split(), "--help")
    examples, codes = text.split("\nExamples:\n")[1].split("\nExit codes:\n")
    assert f"  anatomix {command}".rstrip() in examples
    codes = [int(code) for code in re.findall(r"^ +(\d+)  \S", codes, re.MULTILINE)]
    assert codes[:3] == [0, 1, 2] and codes[-1] == 141
    # A question is refused if the radiograph is flagged; nothing else asks.
    assert (3 in codes) == (command in ["", "ask", "chat", "report"])


@pytest.mark.parametrize("shell", SHELLS)
def test_completions(succeed, shell):
    script = succeed("completions", shell)
    assert all(word in script for word in ["perceive", "providers", "accept-flags", "anatomix"])
    # What only those who install the program need is not completed.
    assert not re.search(r"\bman\b", script)


def test_bash_completes_commands_and_options(succeed, tmp_path):
    (tmp_path / "completions").write_text(succeed("completions", "bash"))
    lines = """
source "$1"
complete_line() {
  COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
  _anatomix anatomix "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
  printf '%s ' "${COMPREPLY[@]}"
  echo
}
complete_line anatomix p
complete_line anatomix ask --follow
complete_line anatomix bundle v
"""
    done = subprocess.run(["bash", "-c", lines, "bash", tmp_path / "completions"], capture_output=True, text=True, check=True)
    assert [line.split() for line in done.stdout.splitlines()] == [["perceive", "providers"], ["--follow-up"], ["verify"]], done.stdout


def test_a_usage_error_shows_the_usage_of_its_command(run, phantom_dicom, tmp_path):
    late = [
        ["ask", phantom_dicom],
        ["ask", phantom_dicom, "left lung", "--task", "report"],
        ["report", phantom_dicom, "--save", phantom_dicom],
        ["perceive", phantom_dicom, "--overlay", phantom_dicom],
    ]
    for arguments in late:
        refused = run(*arguments)
        assert refused.returncode == 2 and f"\nUsage: anatomix {arguments[0]} " in refused.stderr, refused.stderr
    (key := tmp_path / "bundle/manifest.json.minisig").parent.mkdir()
    key.write_text("untrusted comment: a key\n")
    refused = run("bundle", "sign", key.parent, "--key", key)
    assert refused.returncode == 2 and "\nUsage: anatomix bundle sign " in refused.stderr, refused.stderr
    assert "--task report, classification, abnormality_detection" in run("ask", phantom_dicom).stderr


def test_an_unknown_shell_is_a_usage_error(run):
    refused = run("completions", "csh")
    assert refused.returncode == 2 and all(shell in refused.stderr for shell in SHELLS)
