"""Scores by models: BERTScore and CheXbert's labels, against plain PyTorch over the models of transformers, with random parameters.

The Python packages of these scores are not installed for tests: they download their models, or need older versions of transformers. The
formulas here are theirs.
"""

import json
import random

import numpy as np
import pytest
import torch
from test_metrics import CASES, LABELS, TOLERANCE, WORDS, score, texts

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# The labels in the order of CheXbert's heads.
HEADS = [
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis",
    "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding",
]  # fmt: skip
BASELINE = 0.125


def vocabulary(folder):
    """Writes a vocabulary: some words, and all letters as pieces."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,-:;()<>&'\""
    words = sorted({word.lower() for word in WORDS[::2] if word.isalpha()} - set(letters))
    tokens = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    return len(tokens)


def tokenizer(folder):
    from transformers import BertTokenizerFast

    return BertTokenizerFast(vocab=str(folder / "vocab.txt"))


@pytest.fixture(scope="module")
def pairs():
    """Texts with similar ones. Some are empty, some longer than the models' positions."""
    pairs = list(texts(random.Random(5), CASES))
    return [*pairs, ("", "effusion"), ("clear lungs", ""), ("effusion " * 90, "no effusion " * 50)]


def test_bert_score(root, pairs, tmp_path):
    from transformers import DistilBertConfig, DistilBertModel

    torch.manual_seed(1)
    size = vocabulary(tmp_path)
    config = DistilBertConfig(vocab_size=size, dim=32, n_heads=4, n_layers=6, hidden_dim=64, max_position_embeddings=64)
    model = DistilBertModel(config).eval()
    # Random states of equal words are too alike; these differ more.
    torch.nn.init.normal_(model.embeddings.word_embeddings.weight)
    model.save_pretrained(tmp_path)
    (tmp_path / "baseline.tsv").write_text(f"LAYER,P,R,F\n4,0.9,0.9,0.9\n5,0.5,0.5,{BASELINE}\n")
    own = tokenizer(tmp_path)

    def states(texts):
        """Hidden states of each text, and which of its tokens count."""
        encoded = own([text.strip() for text in texts], truncation=True, max_length=64, padding=True, return_tensors="pt")
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        with torch.no_grad():
            hidden = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[5]
        for states, ids, count in zip(hidden, ids, mask.sum(1).tolist()):
            ids = ids[:count]
            counted = ((ids != own.cls_token_id) & (ids != own.sep_token_id)).double()
            yield torch.nn.functional.normalize(states[:count], dim=-1), counted

    expected = []
    both = [list(states(side)) for side in zip(*pairs)]
    for (r, counted_r), (c, counted_c) in zip(*both):
        similar = (c @ r.T).double()
        precision = float((similar.amax(1) * counted_c).sum() / counted_c.sum())
        recall = float((similar.amax(0) * counted_r).sum() / counted_r.sum())
        f = 2 * precision * recall / (precision + recall)
        expected.append(((0.0 if np.isnan(f) else f) - BASELINE) / (1 - BASELINE))
    lines = [{"expected": reference, "predicted": candidate} for reference, candidate in pairs]
    each = score(root, lines, tmp_path / "texts.jsonl", "--each", "--bertscore", tmp_path)
    difference = np.abs(np.array([scores["bert_score"] for scores in each]) - np.array(expected))
    assert len(each) >= CASES and difference.max() < TOLERANCE, difference.max()
    assert np.std(expected) > 0.02
    whole = score(root, lines[:100], tmp_path / "texts.jsonl", "--json", "--bertscore", tmp_path)["all"]["bert_score"]
    assert abs(whole["value"] - np.mean(expected[:100])) < TOLERANCE and whole["interval"][0] < whole["value"] < whole["interval"][1]


def test_chexbert(root, pairs, tmp_path):
    from sklearn.metrics import f1_score
    from transformers import BertConfig, BertModel

    torch.manual_seed(2)
    size = vocabulary(tmp_path)
    config = BertConfig(
        vocab_size=size, hidden_size=32, num_attention_heads=4, num_hidden_layers=3, intermediate_size=64, max_position_embeddings=64
    )
    bert = BertModel(config).eval()
    torch.nn.init.normal_(bert.embeddings.word_embeddings.weight)
    heads = [torch.nn.Linear(32, 4) for _ in range(13)] + [torch.nn.Linear(32, 2)]
    for head in heads:
        torch.nn.init.normal_(head.weight)
    state = {f"module.bert.{name}": value for name, value in bert.state_dict().items()}
    for number, head in enumerate(heads):
        state |= {f"module.linear_heads.{number}.{name}": value for name, value in head.state_dict().items()}
    torch.save({"epoch": 7, "model_state_dict": state}, tmp_path / "chexbert.pth")
    config.save_pretrained(tmp_path)
    own = tokenizer(tmp_path)

    def labels(text):
        encoded = own(" ".join(text.split()), truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            first = bert(**encoded).last_hidden_state[:, 0]
            classes = [int(head(first).argmax()) for head in heads]
        found = {name for name, chosen in zip(HEADS, classes) if chosen in (1, 3)}
        return [name in found for name in LABELS]

    pairs = pairs[:300] + pairs[-3:]
    sides = np.array([[labels(text) for text in pair] for pair in pairs])
    lines = [{"expected": expected, "predicted": predicted} for expected, predicted in pairs]
    figures = score(root, lines, tmp_path / "texts.jsonl", "--json", "--chexbert", tmp_path)["all"]
    assert sides.any((0, 1)).sum() > 7, "most labels occur"
    for average in ["macro", "micro", "weighted"]:
        # Labels that neither side has do not count in the mean.
        known = sides.any((0, 1)) if average == "macro" else slice(None)
        expected = f1_score(sides[:, 0][:, known], sides[:, 1][:, known], average=average, zero_division=0)
        assert abs(figures[f"chexbert_{average}"]["value"] - expected) < TOLERANCE, average


def radgraph_words(text):
    """The words of a report, as the package `radgraph` separates them for radgraph-xl."""
    from nltk.tokenize import wordpunct_tokenize

    words = " ".join(wordpunct_tokenize(" ".join(text.split())))
    for together, apart in [(").", ") ."), ("%.", "% ."), (".'", ". '"), ("%,", "% ,"), ("%)", "% )")]:
        words = words.replace(together, apart)
    return words.split()


def test_radgraph(root, pairs, tmp_path):
    from transformers import BertConfig, BertModel

    width, features, inner, most = 32, 6, 24, 4
    labels = ["Anatomy::definitely present", "Observation::definitely present", "Observation::definitely absent", "Observation::uncertain"]
    torch.manual_seed(3)
    (tmp_path / "bert").mkdir()
    size = vocabulary(tmp_path / "bert")
    config = BertConfig(
        vocab_size=size, hidden_size=width, num_attention_heads=4, num_hidden_layers=2, intermediate_size=48, max_position_embeddings=32
    )
    bert = BertModel(config).eval()
    torch.nn.init.normal_(bert.embeddings.word_embeddings.weight)
    config.save_pretrained(tmp_path / "bert")
    widths = torch.nn.Embedding(most, features)
    forward = [torch.nn.Linear(2 * width + features, inner), torch.nn.Linear(inner, inner)]
    scorer = torch.nn.Linear(inner, len(labels))
    torch.nn.init.constant_(scorer.bias, -0.12)
    head = "_ner._ner_scorers.radgraph-xl__ner_labels"
    state = {f"_embedder.token_embedder_bert._matched_embedder.transformer_model.{n}": v for n, v in bert.state_dict().items()}
    state["_endpoint_span_extractor._span_width_embedding.weight"] = widths.weight.detach()
    for number, layer in enumerate(forward):
        state |= {f"{head}.0._module._linear_layers.{number}.{name}": value for name, value in layer.state_dict().items()}
    state |= {f"{head}.1._module.{name}": value for name, value in scorer.state_dict().items()}
    # Heads that play no part in the score.
    state["_relation._relation_scorers.radgraph-xl__relation_labels.weight"] = torch.zeros(3, inner)
    torch.save(state, tmp_path / "weights.th")
    (tmp_path / "vocabulary").mkdir()
    (tmp_path / "vocabulary/radgraph-xl__ner_labels.txt").write_text("\n".join(["", *labels]))
    (tmp_path / "vocabulary/radgraph-xl__relation_labels.txt").write_text("modify\nlocated_at\nsuggestive_of")
    model = {"feature_size": features, "feedforward_params": {"num_layers": 2, "hidden_dims": inner, "dropout": 0.4}}
    (tmp_path / "config.json").write_text(json.dumps({"dataset_reader": {"max_span_width": most}, "model": model}))
    own = tokenizer(tmp_path / "bert")

    def entities(text):
        words = radgraph_words(text)
        pieces = [own(word, add_special_tokens=False)["input_ids"] for word in words]
        flat = sum(pieces, [])
        states = []
        for start in range(0, len(flat), 30):
            ids = torch.tensor([[own.cls_token_id, *flat[start : start + 30], own.sep_token_id]])
            states.append(bert(input_ids=ids).last_hidden_state[0, 1:-1])
        states, at, means = torch.cat(states), 0, []
        for piece in pieces:
            means.append(states[at : at + len(piece)].mean(0))
            at += len(piece)
        spans = [(start, end) for start in range(len(words)) for end in range(start, min(start + most, len(words)))]
        x = torch.stack([torch.cat([means[a], means[b], widths.weight[b - a]]) for a, b in spans])
        for layer in forward:
            x = torch.relu(layer(x))
        scores = torch.cat([torch.zeros(len(spans), 1), scorer(x)], 1)
        return {(" ".join(words[a : b + 1]), labels[label - 1]) for (a, b), label in zip(spans, scores.argmax(1).tolist()) if label}

    def f1(expected, found):
        if not expected or not found:
            return 0.0
        a, b = entities(expected), entities(found)
        precision, recall = (len(a & b) / max(len(side), 1) for side in (b, a))
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    pairs = pairs[:100] + pairs[-3:]
    with torch.no_grad():
        expected = [f1(*pair) for pair in pairs]
    lines = [{"expected": reference, "predicted": candidate} for reference, candidate in pairs]
    each = score(root, lines, tmp_path / "texts.jsonl", "--each", "--radgraph", tmp_path)
    assert np.abs(np.array([scores["radgraph"] for scores in each]) - np.array(expected)).max() < TOLERANCE
    assert 0.1 < np.mean(expected) < 0.95 and np.std(expected) > 0.05, np.mean(expected)


def test_wrong_folders_are_named(root, tmp_path):
    import subprocess

    from test_metrics import program

    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"expected": "a", "predicted": "b"}))

    def error(option, folder):
        run = subprocess.run([program(root), "score", path, option, folder], capture_output=True, text=True)
        assert run.returncode == 1 and "panicked" not in run.stderr, run.stderr
        return run.stderr

    assert "chexbert.pth" in error("--chexbert", tmp_path)
    assert "config.json" in error("--radgraph", tmp_path)
    assert str(tmp_path) in error("--bertscore", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "distilbert", "n_layers": 2}')
    assert "5 are needed" in error("--bertscore", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "distilbert", "dim": -1}')
    assert "a size of -1" in error("--bertscore", tmp_path)
    (tmp_path / "chexbert.pth").write_bytes(b"\x80\x02nothing")
    (tmp_path / "config.json").unlink()
    assert "chexbert.pth" in error("--chexbert", tmp_path)
