"""Runs a program. Prints the milliseconds from its start to its first line, and its peak memory in MiB.

This is a process of its own, because the peak memory of a child includes the memory that its parent had when it started the child.
"""

import os
import subprocess
import sys
import time

start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
line = process.stdout.readline()
taken = (time.perf_counter() - start) * 1e3
process.stdout.read()
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
if not line.strip() or process.returncode:
    # The program has printed the reason.
    sys.exit(1)
print(taken, usage.ru_maxrss / 1024)
