"""Compiling and running programs in C and C++."""

import subprocess

STRICT = ["-Wall", "-Wextra", "-Wshadow", "-Werror", "-pedantic"]
# What a program does wrong with memory, leaks included, or leaves undefined ends it with an error.
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]


def run(command, env=None):
    """Runs a command, which must succeed, and returns its standard output."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
