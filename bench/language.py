"""Comparisons of the language model: prefill, decoding, prompt look-up, several questions on a study, cold start."""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from machine import floor
from made import LENGTHS, LETTER, PARTS, genai_model, language_bundle, llama_model, published_parts, reference_language, wide_bundle
from peers import Genai, Llama
from sides import BENCH, PAUSE, PHANTOM, REFERENCE, THREADS, Failed, Ours, fresh, processes
from table import attempt, ratios, row

NEW = 64


def question_for(length):
    """A question with which the prompt has this length."""
    question, bundle = "Where is the heart?", language_bundle(length)
    for _ in range(3):
        ours = Ours("ask", bundle, PHANTOM, "plain", 1, questions=[question])
        ours()
        ours.close()
        if ours.numbers[3] == length:
            return question
        question += LETTER * int(length - ours.numbers[3])
    raise Failed(f"a prompt of {length} tokens cannot be made; remove build/bench")


def decoder():
    """Prefill and decoding of a Gemma with 121 million weights in int4."""
    published_parts()
    models = {"onnxruntime-genai": lambda: Genai(genai_model(PARTS / "gemma", "int4")), "llama.cpp Q4_0": llama_model}
    peers = {}
    for name, model in models.items():
        with attempt(f"prefill and decode, int4, 121 M Gemma, beside {name}"):
            peers[name] = model()
    for length in LENGTHS:
        with attempt(f"prefill and decode, int4, 121 M Gemma, {length:,} tokens"):
            decoder_at(length, peers)


# Floors of prefill and decoding, and the ratio that both should reach later.
DECODER_FLOORS = {
    "onnxruntime-genai": (1.5, 1.1, None),
    "llama.cpp Q4_0": (floor(0.9, without_vnni=1.1), floor(0.9, without_vnni=0.95), floor(1.1, without_vnni=None)),
}


def decoder_at(length, peers):
    bundle, question = language_bundle(length), question_for(length)
    # llama.cpp's context has a fixed size.
    sides = {name: Llama(peer, length + NEW, THREADS) if name.startswith("llama") else peer for name, peer in peers.items()}

    def start(started):
        ours = partial(Ours, "ask", bundle, PHANTOM, "plain", NEW, questions=[question], figure=slice(1, 5))
        return [*started([ours]), *(partial(peer, length, NEW) for peer in sides.values())]

    ours, *others = processes(start, 3, 4, PAUSE)
    prompts = {int(prompt) for _, _, prompt, _ in ours}
    if prompts != {length}:
        raise Failed(f"prompts of {prompts} tokens instead of {length}")
    # Milliseconds of a token.
    ours_prefill = [prefill / length for prefill, *_ in ours]
    ours_decode = [decode / (tokens - 1) for _, decode, _, tokens in ours]
    for name, times in zip(sides, others, strict=True):
        prefill_floor, decode_floor, wish = DECODER_FLOORS[name]
        prefill, decode = [prefill / length for prefill, _ in times], [decode for _, decode in times]
        row(f"prefill, int4, 121 M Gemma, {length:,} tokens", name, ours_prefill, prefill, prefill_floor, "tokens/s", 1, wish)
        row(f"decode, int4, 121 M Gemma, after {length:,} tokens", name, ours_decode, decode, decode_floor, "tokens/s", 1, wish)


PLACES = ["left lung", "right lung", "trachea and main bronchus", "mediastinum", "left clavicle", "right clavicle", "aortic arch structure"]
GROUNDED = [f"Where is the {name}?" for name in PLACES]


def look_up():
    """Grounded answers with prompt look-up, compared with plain decoding."""
    sides = lambda started: started(
        [partial(Ours, "ask", REFERENCE, PHANTOM, mode, 64, questions=GROUNDED, figure=2) for mode in ["look-up", "plain"]]
    )
    row(f"{len(GROUNDED)} grounded answers, reference bundle, decoding", "ourselves without look-up", *processes(sides, 4, 6), 2.5)


def rejected_drafts():
    """Answers whose words begin like words of the prompt and continue differently, so that all drafts are rejected: with prompt look-up,
    compared with plain decoding."""
    # Number of letters to which words are cut. With random weights, drafts of whole words would sometimes be accepted.
    models = {
        "reference bundle": (lambda: REFERENCE, 99),
        "121 M Gemma int4": (lambda: language_bundle(min(LENGTHS)), 1),
        "4 layers as wide as MedGemma-4b, int4": (wide_bundle, 1),
    }
    for name, (bundle, letters) in models.items():
        work = f"32 tokens, every draft is rejected, {name}"
        with attempt(work):
            path = bundle()
            sides = lambda started: started(
                [partial(Ours, "rejected", path, PHANTOM, mode, 32, letters, figure=1) for mode in ["look-up", "plain"]]
            )
            row(work, "ourselves without look-up", *processes(sides, 8, 3), 0.95)


def nine_questions():
    """From an image to nine answers, compared with prefills and answers of the same lengths."""
    questions = [*GROUNDED, "Is there a pleural effusion?", "What is the diagnosis?"]
    ours = Ours("ask", REFERENCE, PHANTOM, "look-up", 64, questions=[questions[0], questions[0]])
    ours()
    context = int(ours.numbers[5] - ours.numbers[7])
    ours.close()
    sides = [Ours("ask", REFERENCE, PHANTOM, how, 64, questions=questions) for how in ["together", "look-up"]]
    ours, one_by_one = sides
    [side() for side in sides]
    asked, answered = ours.numbers[5::2], ours.numbers[6::2]
    lengths = [int(prompt) + (context if turn else 0) for turn, prompt in enumerate(asked)]
    genai = Genai(genai_model(reference_language(), "fp32"))

    def peer():
        total = 0.0
        for prompt, new in zip(lengths, answered, strict=True):
            # The end of an answer is a token, too.
            prefill, decode = genai(prompt, int(new) + 1)
            total += prefill + decode * new
        return total

    peer()
    figures = [(ours(), one_by_one(), peer()) for _ in range(9)]
    together, apart, peers = zip(*figures, strict=True)
    name = "onnxruntime-genai fp32, random weights of that shape, prompts and answers as long, without perception"
    row("nine questions on one study, from pixels, reference bundle", name, together, peers, 4.0)
    row("the same", "ourselves, one question after the other", together, apart)
    [side.close() for side in sides]


def cold_start():
    """New processes, from their start to the first token. Ours also reads the image and runs the perception module."""
    published_parts()
    length = min(LENGTHS)
    questions = [question_for(length)]
    ours = [[BENCH, "cold", language_bundle(length), PHANTOM, golden] for golden in ["no-golden-check", "golden-check"]]
    peer = [sys.executable, Path(__file__).with_name("peers.py"), genai_model(PARTS / "gemma", "int4"), length]
    figures = []
    for _ in range(6):
        figures.append([*fresh(ours[0], questions), *fresh(ours[1], questions), *fresh(peer)])
    taken, held, checked, _, peer_taken, peer_held = zip(*figures[1:], strict=True)
    # The floors are 0.8 of the peer's time and memory.
    work = f"cold start to the first token, {length:,} tokens, 121 M Gemma int4, ours with perception"
    row(work, "onnxruntime-genai in Python", taken, peer_taken, 1.25)
    row(f"{work} and the golden input", "onnxruntime-genai in Python", checked, peer_taken)
    row("peak memory of the first of these", "onnxruntime-genai in Python", held, peer_held, 1.25, "MiB")


def grammar():
    """The cost of constrained decoding: with the reference bundle, whose steps are very short, and with a larger decoder."""
    for bundle, temperature, rounds in [(REFERENCE, 0, 5), (REFERENCE, 1, 5), (language_bundle(min(LENGTHS)), 0, 1)]:
        start = lambda started: started([partial(Ours, "form", bundle, PHANTOM, temperature, figure=slice(1, None))])
        (figures,) = processes(start, 3, rounds)
        *forms, free = ([taken / 1e3 for taken in side] for side in zip(*figures, strict=True))
        where = "reference bundle" if bundle == REFERENCE else "121 M Gemma int4"
        how = "sampled at temperature 1" if temperature else "greedy"
        # At most 5 % of a step.
        for form, taken in zip(["with groundings", "of JSON by a schema"], forms, strict=True):
            row(f"a token {form}, {where}, {how}", "ourselves unconstrained", taken, free, 1 / 1.05)


def callers():
    """Reports of two callers, compared with those of one, on an engine with one thread."""
    work = "reports of two callers of an engine of one thread, reference bundle"
    with attempt(work):
        if THREADS < 2:
            raise Failed("this machine has one core")
        per_report = lambda side: side() / side.numbers[1]

        def start(started):
            together, alone, other = started([partial(Ours, "callers", REFERENCE, PHANTOM, 1, count) for count in [2, 1, 1]])

            def apart():
                with ThreadPoolExecutor(2) as pool:
                    reports = [pool.submit(per_report, side) for side in [alone, other]]
                return 1 / sum(1 / each.result() for each in reports)

            return [partial(per_report, together), partial(per_report, alone), apart]

        both, one, two = processes(start, 4, 4)
        # Two processes of one caller each share nothing but the machine: one engine need not be faster than they are.
        row(work, "ourselves, one caller", both, one, min(1.8, 0.97 * ratios(two, one)), unit="reports/s", amount=1)
        row("the same", "ourselves, two processes of one caller", both, two, unit="reports/s", amount=1)


WORKS = [look_up, rejected_drafts, callers, grammar, nine_questions, decoder, cold_start]
