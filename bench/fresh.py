"""Runs a program and prints the milliseconds from its start until it says something, and the most memory it held, in MiB.

A process of its own, because a child is charged with what its parent held when it began.
"""

import os
import subprocess
import sys
import time

start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
said = process.stdout.readline()
taken = (time.perf_counter() - start) * 1e3
process.stdout.read()
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
if not said.strip() or process.returncode:
    # It has said why.
    sys.exit(1)
print(taken, usage.ru_maxrss / 1024)
