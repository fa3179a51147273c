"""A C program that opens, perceives, asks and closes again and again keeps its memory; see memory.py, which `make test-memory` runs."""

import memory
import pytest


@pytest.fixture(scope="module")
def program(anatomix, tmp_path_factory):
    return memory.built(tmp_path_factory.mktemp("memory"), anatomix.parent)


def test_memory_is_constant(program, bundle, phantom_dicom):
    early, late = memory.growth(program, bundle, phantom_dicom, 200)
    assert late - early <= memory.MOST_GROWTH, f"{early} kB became {late} kB"
