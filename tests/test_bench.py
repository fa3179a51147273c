"""`make bench`: a figure that a machine cannot give is a row with the reason, and floors depend on the kind of machine."""

import sys
from contextlib import contextmanager
from functools import partial

import pytest
from conftest import ROOT, needed


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """The modules of bench/, with an empty table."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import images
    import language
    import machine
    import sides
    import table

    monkeypatch.setattr(table, "ROWS", [])
    monkeypatch.setattr(sides, "FOLDER", tmp_path)
    yield {"images": images, "language": language, "machine": machine, "sides": sides, "table": table}
    for name in ["images", "language", "machine", "made", "peers", "sides", "table"]:
        sys.modules.pop(name, None)


def program(path, lines):
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    path.chmod(0o755)
    return path


def test_what_cannot_be_measured_is_a_row(bench, tmp_path, monkeypatch):
    sides, table = bench["sides"], bench["table"]
    answers = program(tmp_path / "answers", ["echo ready", "while read line; do echo 2.0; done"])
    refuses = program(tmp_path / "refuses", ["echo 'error: boxes | differ' >&2", "exit 1"])
    stops = program(tmp_path / "stops", ["echo ready", "read line", "echo 'error: killed' >&2", "exit 3"])
    for work, path in [("a bundle that is refused", refuses), ("one that stops", stops), ("one that runs", answers)]:
        monkeypatch.setattr(sides, "BENCH", path)
        with table.attempt(work):
            ours = sides.Ours("perceive")
            table.row(work, "a peer", *sides.turns(ours, lambda: 3.0, 3), 1.2)
            ours.close()
    with table.attempt("beside a peer"):
        import no_such_peer  # noqa: F401
    with table.attempt("an export"):
        sides.run([refuses, "export"])
    with table.attempt("a cold start"):
        sides.fresh([refuses])
    said = [[line["work"], line["ours"], line["peer"], line["reached"]] for line in table.ROWS]
    missing = "cannot be measured here: "
    assert said == [
        ["a bundle that is refused", "-", missing + "Failed: error: boxes / differ (exit 1)", "-"],
        ["one that stops", "-", missing + "Failed: error: killed (exit 3)", "-"],
        ["one that runs", "2.00 ms", "a peer: 3.00 ms", "yes"],
        ["beside a peer", "-", missing + "ModuleNotFoundError: No module named 'no_such_peer'", "-"],
        ["an export", "-", missing + "Failed: refuses: error: boxes / differ (exit 1)", "-"],
        ["a cold start", "-", said[-1][2], "-"],
    ]
    assert "boxes / differ" in said[-1][2]


@pytest.mark.parametrize("flags,kind,expected", [
    ({"sse2", "avx2"}, "x86-64 without VNNI", 0.95),
    ({"sse2", "avx2", "avx512f"}, "x86-64 without VNNI", 0.95),
    ({"sse2", "avx2", "avx_vnni"}, "x86-64 with VNNI", 0.9),
    ({"sse2", "avx512f", "avx512_vnni"}, "x86-64 with VNNI", 0.9),
    ({"asimd", "asimddp"}, "not x86-64", 0.9),
])  # fmt: skip
def test_floors_by_kind(bench, monkeypatch, flags, kind, expected):
    machine = bench["machine"]
    monkeypatch.setattr(machine, "FLAGS", flags)
    assert machine.kind() == kind
    assert machine.floor(0.9, without_vnni=0.95) == expected


def test_ratios_are_those_of_rounds(bench):
    """A machine that is slow for some rounds changes both sides of these."""
    table, sides = bench["table"], bench["sides"]
    table.row("a work", "a peer", [1.0, 9.0, 10.0, 1.0, 1.0], [2.0, 18.0, 20.0, 2.0, 0.5], 2.0)
    assert [table.ROWS[0][column] for column in ["ours", "peer", "ratio", "reached"]] == ["1.00 ms", "a peer: 2.00 ms", "2.00", "yes"]
    events = []

    @contextmanager
    def process(name):
        events.append(f"{name} starts")
        yield lambda: events.append(name) or len(events)
        events.append(f"{name} ends")

    figures = sides.processes(lambda started: started([partial(process, name) for name in "ab"]), 2, 2)
    # The turns that are counted, after the first one of each start; both sides' figures are in the order in which they were given.
    assert [list(side) for side in figures] == [[6, 7, 16, 17], [5, 8, 15, 18]]
    first = ["a starts", "b starts", "a", "b", "b", "a", "a", "b", "b ends", "a ends"]
    assert events == [*first, "b starts", "a starts", "a", "b", "b", "a", "a", "b", "a ends", "b ends"]


def test_steps_of_the_trainer_and_of_pytorch_alternate(bench, monkeypatch, tmp_path):
    """`make bench-training` with a small model: both sides take the same arguments and give time and memory."""
    needed(ROOT / "target/release/examples/training", "trainer")
    import training

    shape = training.SMALL | {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "head_dim": 16}
    models = {"language": shape, "lora": training.LORA}
    works = {
        "optimiser": ("AdamW", "adamw", {}, (1, 0), (1, 0)),
        "small": ("decoder", "instruct", models, (1, 300), (1, 300)),
    }
    monkeypatch.setattr(training, "WORKS", works)
    monkeypatch.setattr(training, "FOLDER", tmp_path)
    training.measure("optimiser", "fp32", False, rounds=1, starts=1)
    training.measure("small", "bf16", True, rounds=1, starts=1)
    small = {"blocks": [1, 1, 1, 1], "planes": 8, "width": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "frozen_stages": 0}
    training.loading(64, 2, 3, small)
    sys.modules.pop("training")
    rows = bench["table"].ROWS
    assert [row["work"] for row in rows] == [
        "a step: AdamW",
        "its peak memory",
        "a step: decoder, batch 1, 300 tokens, bf16, layers computed again",
        "its peak memory",
        "share of the time in which steps of the perception module, 64 x 64, batch 2, wait for data",
    ]
    assert all(float(row["ratio"]) > 0 and row["reached"] in ("yes", "NO") for row in rows)
