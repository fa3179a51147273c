"""Calls that take time: streaming, cancelling, Ctrl-C, deadlines, threads, memory."""

import gc
import resource
import signal
import sys
import threading

import anatomix
import pytest

from conftest import BUNDLE, PHANTOM

QUESTION = "Where is the left lung?"
LONG = {"unconstrained": True, "temperature": 100.0, "max_tokens": 1_000_000}


def test_pieces_add_up_to_the_text(study):
    stream = study.stream(task="report")
    pieces = list(stream)
    answer = stream.answer
    assert len(pieces) > 3 and "".join(pieces) == answer.text
    assert answer.text == study.ask(task="report").text and answer.finish == "end_of_turn"
    assert list(stream) == [] and stream.answer is answer


def test_an_answer_can_be_had_without_its_pieces(study):
    stream = study.stream(QUESTION)
    assert stream.answer.text == study.ask(QUESTION).text


def test_a_stream_that_cannot_be_answered_raises(study):
    stream = study.stream("<eos>")
    for _ in range(2):
        with pytest.raises(anatomix.QuestionError):
            next(stream)
        with pytest.raises(anatomix.QuestionError):
            stream.answer  # noqa: B018
    with pytest.raises(TypeError, match="unknown"):
        study.stream(QUESTION, unknown=1)


def test_a_stream_can_be_cancelled_and_left(study):
    expected = study.ask(QUESTION).text
    stream = study.stream("Describe.", **LONG)
    next(stream)
    stream.cancel()
    rest = list(stream)
    assert stream.answer.finish == "stopped" and len(rest) < 1000
    # A stream that is deleted stops, too: the next question does not wait for a million tokens.
    for _ in study.stream("Describe.", **LONG):
        break
    assert study.ask(QUESTION).text == expected


def test_a_late_cancel_stops_no_other_answer(study):
    stream = study.stream(QUESTION)
    list(stream)
    answers = []
    asker = threading.Thread(target=lambda: answers.append(study.ask(task="report")))
    asker.start()
    while asker.is_alive():
        stream.cancel()
    assert answers[0].finish == "end_of_turn"


def test_a_question_waits_for_the_stream_before_it(study):
    stream = study.stream(task="report")
    first = next(stream)
    assert study.ask(QUESTION).finish == "end_of_turn"
    assert first + "".join(stream) == stream.answer.text


def test_another_thread_cancels(study):
    for cancel in (study.cancel, study.cancel_handle().cancel):
        tokens = 0
        while not tokens:
            timer = threading.Timer(0.02, cancel)
            timer.start()
            answers = (study.ask("Describe.", **LONG) for _ in range(1000))
            # It has no tokens if the request came between two answers.
            tokens = next(answer.tokens for answer in answers if answer.finish == "stopped")
            timer.join()


def test_deadlines_end_calls(engine, study):
    answer = study.ask("Describe.", deadline=0.01, **LONG)
    assert answer.finish == "deadline"
    with pytest.raises(anatomix.StoppedError) as error:
        engine.study(PHANTOM, deadline=0)
    assert error.value.code == "deadline"
    [outcome] = engine.studies([PHANTOM], deadline=0)
    assert isinstance(outcome, anatomix.StoppedError)
    handle = anatomix.CancelHandle()
    handle.cancel()
    with pytest.raises(anatomix.StoppedError) as error:
        engine.study(PHANTOM, cancel=handle)
    assert error.value.code == "stopped"


INTERRUPTED = """
import os, signal, sys, threading
import anatomix

# A program in the background of a shell ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
QUESTION = "Where is the left lung?"
messages = []
engine = anatomix.Engine.open(sys.argv[1], log=lambda level, message: messages.append(message))
study = engine.study(sys.argv[2])
expected = study.ask(QUESTION).text
# As long as the model's context allows.
options = dict(json_schema={"type": "array", "minItems": 100_000, "items": {"enum": ["none"]}}, max_tokens=1_000_000)
interrupted = 0
while interrupted < 2:
    timer = threading.Timer(0.02, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    try:
        # The signal comes while one of these is decoded, or between two of them.
        for number in range(1000):
            if sys.argv[3] == "ask":
                study.ask("Describe.", **options)
            elif sys.argv[3] == "stream":
                for piece in study.stream("Describe.", **options):
                    pass
            else:
                stream = study.stream("Describe.", **options)
                stream.answer
    except KeyboardInterrupt:
        timer.join()
    assert study.ask(QUESTION).text == expected
    cut, whole = [message for message in messages if message.startswith("answer on")][-2:]
    assert ", end_of_turn, " in whole, (cut, whole)
    interrupted += ", stopped, " in cut
print("interrupted", interrupted)
"""


@pytest.mark.parametrize("way", ["ask", "stream", "answer"])
def test_ctrl_c_ends_an_answer_and_not_the_study(script, way):
    done = script(INTERRUPTED, BUNDLE, PHANTOM, way)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted 2\n", "")


def test_an_interrupted_call_that_was_not_caught_ends_the_program(script):
    done = script(INTERRUPTED.replace("except KeyboardInterrupt", "except ZeroDivisionError"), BUNDLE, PHANTOM, "ask")
    assert done.returncode == -signal.SIGINT and done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_python_exits_while_an_answer_is_decoded(script):
    code = """
import sys, anatomix
study = anatomix.Engine.open(sys.argv[1]).study(sys.argv[2])
stream = study.stream("Describe.", unconstrained=True, temperature=100.0, max_tokens=1_000_000)
next(stream)
print("leaving")
"""
    for _ in range(3):
        done = script(code, BUNDLE, PHANTOM)
        assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


def test_threads_share_an_engine(engine):
    expected = engine.study(PHANTOM).ask(task="report").text
    found = []

    def work():
        for _ in range(3):
            study = engine.study(PHANTOM)
            found.append(study.ask(task="report").text)
            found.append("".join(study.stream(task="report")))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 48


def test_threads_share_a_study(study):
    expected = study.ask(QUESTION).text
    found = []
    threads = [threading.Thread(target=lambda: found.append(study.ask(QUESTION).text)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


def test_python_runs_while_an_answer_is_decoded(study):
    """The GIL is free: a thread of Python makes progress, and what is known of a study can be read."""
    running, done = [None], threading.Event()

    def work():
        for number in range(200):
            if done.is_set():
                break
            running[0] = number
            study.ask("Describe.", **LONG)
            running[0] = None

    asker = threading.Thread(target=work)
    asker.start()
    # Steps during one and the same call. If a call held the GIL, there would be none.
    steps = 0
    while steps < 20 and asker.is_alive():
        during = running[0]
        assert len(study.structures) == 36 and study.to_dict()["width"] == study.width
        steps = steps + 1 if during is not None and during == running[0] else 0
    done.set()
    study.cancel()
    asker.join()
    assert steps == 20


def test_messages_arrive_and_the_callback_cannot_harm(monkeypatch):
    lines = []
    engine = anatomix.Engine.open(BUNDLE, log=lambda level, message: lines.append((level, message)))
    engine.study(PHANTOM)
    assert {"info", "debug"} <= {level for level, _ in lines}
    assert not any("phantom.dcm" in message for _, message in lines)

    inner, unraisable = [], []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: unraisable.append(raised.exc_type))

    def careless(level, message):
        try:
            inner.append(engine.study(PHANTOM))
        except RuntimeError as error:
            inner.append(error)
        raise ZeroDivisionError

    raising = anatomix.Engine.open(BUNDLE, log=careless)
    assert len(raising.study(PHANTOM).structures) == 36
    assert inner and all(isinstance(one, RuntimeError) for one in inner)
    assert set(unraisable) == {ZeroDivisionError}
    with pytest.raises(TypeError, match="log is not callable"):
        anatomix.Engine.open(BUNDLE, log=3)


def test_a_forked_process_is_told_what_to_do(script):
    code = """
import multiprocessing, sys
import anatomix

def work(bundle, image):
    try:
        print(anatomix.Engine.open(bundle).study(image).width)
    except RuntimeError as error:
        print(error)
    sys.stdout.flush()

for used_before in (False, True):
    if used_before:
        work(*sys.argv[1:])
    child = multiprocessing.get_context("fork").Process(target=work, args=sys.argv[1:])
    child.start()
    child.join(60)
    assert child.exitcode == 0, child.exitcode
"""
    done = script(code, BUNDLE, PHANTOM)
    width, again, refused = done.stdout.splitlines()
    assert done.returncode == 0 and width == again and 'get_context("spawn")' in refused, done.stderr


def test_many_studies_take_no_more_memory_than_a_few(engine):
    """The peak of the process's memory no longer rises, whatever is made and dropped."""
    radiograph = anatomix.Radiograph.open(PHANTOM)

    def work(count):
        for number in range(count):
            study = engine.study(radiograph)
            study.ask(QUESTION, max_tokens=4)
            study.to_dict()
            for _ in study.stream(QUESTION, max_tokens=4):
                break
            if number % 10 == 0:
                study.overlay_png()
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    before = work(20)
    assert work(60) - before < 24 << 20
