"""The sanitizers that the C and C++ programs of the tests run under."""

import pytest
from native import SANITIZERS, run

DEFECTS = {
    "leak": (r"volatile char *lost = malloc(4); lost[argc] = 1; lost = NULL;", "LeakSanitizer"),
    "overflow": (r"volatile char *few = malloc(4); few[argc + 3] = 1; free((void *)few);", "AddressSanitizer"),
    "undefined": (r"volatile int most = 2147483647; most += argc; return most == 0;", "signed integer overflow"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_sanitizers_see(tmp_path, defect):
    """The programs of these tests would fail if they leaked or overflowed: this one does."""
    body, report = DEFECTS[defect]
    source, program = tmp_path / "defect.c", tmp_path / "defect"
    source.write_text(f"#include <stdlib.h>\nint main(int argc, char **argv) {{ (void)argv; {body} return 0; }}\n")
    run(["gcc", "-std=c11", *SANITIZERS, source, "-o", program])
    with pytest.raises(AssertionError, match=report):
        run([program])
