"""Independent readers of the reference bundle: all steps in Python, and the decoder in transformers.

These tests share only the bundle with the SDK: pixels come from pydicom and Pillow, graphs run in ONNX Runtime's Python binding, retrieval
is in NumPy, the prompt is written here again, and greedy decoding has no KV cache.
"""

import json
import math
import re
import tomllib

import numpy as np
import onnx
import onnxruntime
import pydicom
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from attention_inputs import attention
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

STRUCTURE_COUNT = 36
GRID = 1024


def equalized(values: np.ndarray) -> np.ndarray:
    """Fraction of pixels below each value. A darkest or brightest value with more than 2 % of the pixels is not counted."""
    bins = np.rint(np.clip(values, 0, 1) * 65535).astype(np.int64)
    counts = np.bincount(bins.ravel(), minlength=65536)
    for edge in (bins.min(), bins.max()):
        if counts[edge] > values.size // 50:
            counts[edge] = 0
    return ((np.cumsum(counts) - counts / 2) / max(counts.sum(), 1))[bins].astype(np.float32)


class Reader:
    """A reader of bundles."""

    def __init__(self, folder):
        self.folder = folder
        self.manifest = json.loads((folder / "manifest.json").read_text())
        session = lambda name: onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
        self.apm, self.projector, self.decoder = map(session, ("apm.onnx", "projector.onnx", "decoder.onnx"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.sentences = []
        with safe_open(folder / "sentences.safetensors", framework="numpy") as file:
            for i in range(STRUCTURE_COUNT):
                rows, text, offsets = (file.get_tensor(f"{i:02}.{part}") for part in ("embeddings", "text", "offsets"))
                lines = [bytes(text[a:b]).decode() for a, b in zip(offsets[:-1], offsets[1:])]
                self.sentences.append((rows, lines))

    def image(self, values: np.ndarray) -> np.ndarray:
        """The network's input from intensities 0..1, where dense tissue is bright."""
        preprocess = self.manifest["preprocess"]
        if preprocess["histogram"] == "equalize":
            values = equalized(values)
        height, width = values.shape
        side = max(height, width)
        square = np.zeros((side, side), np.float32)
        top, left = (side - height) // 2, (side - width) // 2
        square[top : top + height, left : left + width] = values
        size = preprocess["size"]
        small = np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))
        return ((small - small.min()) / (small.max() - small.min()))[None, None]

    def perceive(self, values: np.ndarray) -> dict:
        names = ["boxes", "object_embeddings", "image_tokens"]
        centres, embeddings, tokens = self.apm.run(names, {"image": self.image(values)})
        middle, half = centres[0, :, :2], centres[0, :, 2:] / np.float32(2)
        boxes = np.clip(np.concatenate([middle - half, middle + half], 1), 0, 1)
        best = []
        for (rows, lines), embedding in zip(self.sentences, embeddings[0]):
            best.append(lines[int((rows @ (embedding / np.linalg.norm(embedding))).argmax())])
        [features] = self.projector.run(None, {"image_tokens": tokens, "object_embeddings": embeddings})
        return {"boxes": boxes, "sentences": best, "features": features[0]}

    def context(self, boxes: np.ndarray, sentences: list[str]) -> str:
        """The text before the question; boxes are on the prompt's grid."""
        lines = []
        for i, (box, sentence) in enumerate(zip(boxes, sentences)):
            lines.append(f"\nemb:<emb><obj_{i}></emb> box:<box>({box[0]},{box[1]}),({box[2]},{box[3]})</box> {sentence}")
        context = "<bos><start_of_turn>user\nImage: \n\n<image_start>" + "<image>" * self.manifest["apm"]["patches"]
        return context + "<image_end>\n\n\nLikely findings:" + "".join(lines)

    def prompt(self, seen: dict, question: str) -> tuple[np.ndarray, np.ndarray]:
        """Token ids, and for each of them its row of the visual features or -1."""
        patches = self.manifest["apm"]["patches"]
        context = self.context((seen["boxes"] * np.float32(GRID)).astype(int), seen["sentences"])
        # Context and question are tokenized apart, because the SDK keeps the context.
        turn = f"\nTask: {question}<end_of_turn>\n<start_of_turn>model\n"
        encode = lambda text: self.tokenizer.encode(text, add_special_tokens=False).ids
        ids = np.array(encode(context) + encode(turn))
        index = np.full(len(ids), -1)
        images = ids == self.tokenizer.token_to_id("<image>")
        index[images] = np.arange(images.sum())
        for i in range(STRUCTURE_COUNT):
            index[ids == self.tokenizer.token_to_id(f"<obj_{i}>")] = patches + i
        return ids, index

    def logits(self, ids: np.ndarray, index: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Logits after the last token, computed in one run."""
        sizes = self.manifest["decoder"]
        empty = np.zeros((1, sizes["kv_heads"], len(ids), sizes["head_dim"]), np.float32)
        feed = attention(0, len(ids), sizes) | {
            "input_ids": ids[None],
            "visual_index": index[None],
            "visual_features": features,
            "seqlens_k": np.array([len(ids) - 1], np.int32),
            "total_sequence_length": np.array(len(ids), np.int32),
            "logit_positions": np.array([len(ids) - 1]),
        }
        for port in self.decoder.get_inputs():
            if port.name.startswith("past_key_values"):
                feed[port.name] = empty
            elif port.name == "total_sequence_length" and port.shape:
                feed[port.name] = feed[port.name].reshape(1)
        return self.decoder.run(["logits"], feed)[0].reshape(-1)

    def answers(self, seen: dict, questions: list[str], limit: int = 160) -> list[str]:
        """Greedy decoding of a conversation, which computes the whole sequence for each token."""
        encode = lambda text: self.tokenizer.encode(text, add_special_tokens=False).ids
        end, said = self.tokenizer.token_to_id("<end_of_turn>"), []
        ids, index = self.prompt(seen, questions[0])
        for turn, question in enumerate(questions):
            if turn > 0:
                asked = [end, *encode(f"\n<start_of_turn>user\nTask: {question}<end_of_turn>\n<start_of_turn>model\n")]
                ids, index = np.append(ids, asked), np.append(index, np.full(len(asked), -1))
            start = len(ids)
            while len(ids) - start < limit:
                token = int(self.logits(ids, index, seen["features"]).argmax())
                if token == end:
                    break
                ids, index = np.append(ids, token), np.append(index, -1)
            said.append(self.tokenizer.decode(ids[start:].tolist(), skip_special_tokens=False))
        return said


def readable(text: str) -> str:
    return re.sub(r" +", " ", re.sub(r"<box>.*?</box>|</?ref>", "", text)).strip()


def letterboxed(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Converts a box from 0..1 in the square to pixels of the image."""
    side = max(width, height)
    shift = np.array([(side - width) // 2, (side - height) // 2] * 2)
    return np.clip(boxes * side - shift, 0, [width, height] * 2)


@pytest.fixture(scope="module")
def reader(bundle) -> Reader:
    return Reader(bundle)


@pytest.fixture(scope="module")
def pixels(phantom_dicom) -> np.ndarray:
    dataset = pydicom.dcmread(phantom_dicom)
    values = dataset.pixel_array.astype(np.float32) / (2**dataset.BitsStored - 1)
    return 1 - values if dataset.PhotometricInterpretation == "MONOCHROME1" else values


@pytest.fixture(scope="module")
def seen(reader, pixels) -> dict:
    return reader.perceive(pixels)


def test_boxes_and_sentences(seen, pixels, perceive, phantom_dicom):
    study = perceive(phantom_dicom)
    boxes = letterboxed(seen["boxes"], study["width"], study["height"])
    worst = abs(boxes - np.array([found["box"] for found in study["structures"]])).max()
    print(f"boxes differ by at most {worst:.3f} pixels of {max(pixels.shape)}")
    assert worst < 0.005 * max(pixels.shape)
    for found, sentence in zip(study["structures"], seen["sentences"]):
        # Resizing rounds differently here, so that either of two nearly equal sentences may be retrieved.
        assert sentence == found["sentence"] or found["margin"] < 0.02, found["name"]


@pytest.fixture(scope="module")
def near(perceive, phantom_dicom, seen) -> dict:
    """Boxes and sentences of the SDK's own perception, so that only the language model's part is compared."""
    study = perceive(phantom_dicom)
    side = max(study["width"], study["height"])
    shift = np.array([(side - study["width"]) // 2, (side - study["height"]) // 2] * 2)
    boxes = (np.array([found["box"] for found in study["structures"]], np.float32) + shift) / side
    # A coordinate on the edge between two numbers of the grid may become either.
    boxes = np.where(abs(boxes - seen["boxes"]) * GRID < 2, seen["boxes"], boxes)
    return {**seen, "sentences": [found["sentence"] for found in study["structures"]], "boxes": boxes}


def check_answer(answer: dict, raw: str, study: dict):
    assert readable(raw) == answer["text"]
    found = re.findall(r"<box>\((\d+),(\d+)\),\((\d+),(\d+)\)</box>", raw)
    ours = [box for grounding in answer["groundings"] for box in grounding["boxes"]]
    theirs = letterboxed(np.array(found, float).reshape(-1, 4) / GRID, study["width"], study["height"])
    assert len(ours) == len(theirs)
    if ours:
        assert abs(np.array(ours) - theirs).max() <= 4 * max(study["width"], study["height"]) / GRID


@pytest.mark.parametrize("question", ["Where is the left lung?", "Is there a pleural effusion?", "What does the heart show?"])
def test_answers(reader, perceive, succeed, phantom_dicom, near, question):
    answer = json.loads(succeed("ask", phantom_dicom, question, "--json"))
    [raw] = reader.answers(near, [question])
    check_answer(answer, raw, perceive(phantom_dicom))


def test_a_conversation(reader, perceive, succeed, phantom_dicom, near):
    questions = ["Where is the left lung?", "What does it show?", "Is there a pleural effusion?"]
    answers = [json.loads(line) for line in succeed("ask", phantom_dicom, *questions, "--follow-up", "--json").splitlines()]
    for answer, raw in zip(answers, reader.answers(near, questions), strict=True):
        check_answer(answer, raw, perceive(phantom_dicom))
    # The second question refers to the first, so that the model must see both.
    [alone] = reader.answers(near, questions[1:2])
    assert readable(alone) != answers[1]["text"]


@pytest.fixture(scope="module")
def gemma(root, bundle, manifest) -> Gemma3ForCausalLM:
    """transformers' Gemma 3 with the weights in decoder.onnx, which have their published names."""
    sizes = tomllib.loads((root / "recipes/reference.toml").read_text())["models"]["language"]
    rope = lambda theta, factor: (
        {"rope_type": "default", "rope_theta": theta}
        if factor == 1.0
        else {"rope_type": "linear", "rope_theta": theta, "factor": factor}
    )
    layers, pattern = sizes["num_hidden_layers"], sizes["sliding_window_pattern"]
    config = Gemma3TextConfig(
        vocab_size=manifest["decoder"]["vocabulary"],
        hidden_size=sizes["hidden_size"],
        intermediate_size=sizes["intermediate_size"],
        num_hidden_layers=layers,
        num_attention_heads=sizes["num_attention_heads"],
        num_key_value_heads=sizes["num_key_value_heads"],
        head_dim=sizes["head_dim"],
        query_pre_attn_scalar=int(sizes["query_pre_attn_scalar"]),
        max_position_embeddings=sizes["max_position_embeddings"],
        sliding_window=sizes["sliding_window"],
        layer_types=["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(layers)],
        rope_parameters={
            "full_attention": rope(sizes["rope_theta"], sizes["rope_factor"]),
            "sliding_attention": rope(sizes["rope_local_base_freq"], 1.0),
        },
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    with torch.device("cpu"):
        model = Gemma3ForCausalLM(config).float().eval()
    stored = {t.name: t for t in onnx.load(bundle / "decoder.onnx").graph.initializer}
    value = lambda name: torch.from_numpy(numpy_helper.to_array(stored[name]).astype(np.float32))
    heads = [model.config.num_attention_heads, model.config.num_key_value_heads, model.config.num_key_value_heads]
    # Linear layers with the same input are stored as one matrix, one layer after the other.
    merged = {
        "qkv_proj": (["q_proj", "k_proj", "v_proj"], [count * model.config.head_dim for count in heads]),
        "gate_up_proj": (["gate_proj", "up_proj"], [model.config.intermediate_size] * 2),
    }
    part_of = {}
    for whole, (parts, widths) in merged.items():
        for at, part in enumerate(parts):
            part_of[part] = (whole, slice(sum(widths[:at]), sum(widths[: at + 1])))
    weights = {}
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        if (layer := name.split(".")[-2]) in part_of:
            whole, columns = part_of[layer]
            values = value(name.replace(layer, whole))[:, columns]
        else:
            values = value(name)
        if name.endswith("norm.weight"):
            values = values - 1  # stored as the factor `1 + weight`
        elif name.endswith("_proj.weight"):
            values = values.T  # stored transposed
        assert values.shape == parameter.shape, name
        weights[name] = values
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights)
    return model


def test_decoder_against_transformers(reader, gemma, seen):
    for question in ("Write the findings and impression of this chest radiograph.", "Where is the heart?"):
        ids, index = reader.prompt(seen, question)
        table = gemma.get_input_embeddings().weight
        hidden = table[torch.from_numpy(ids)] * math.sqrt(table.shape[1])
        features = torch.from_numpy(seen["features"])
        visual = torch.from_numpy(index)
        hidden = torch.where((visual >= 0)[:, None], features[visual.clamp(min=0)], hidden)
        with torch.no_grad():
            theirs = gemma(inputs_embeds=hidden[None]).logits[0, -1].numpy()
        ours = reader.logits(ids, index, seen["features"])
        worst = abs(ours - theirs).max()
        print(f"logits over {len(ids)} tokens differ by at most {worst:.1e} of {abs(theirs).max():.1f}")
        assert worst < 1e-3 * max(abs(theirs).max(), 1)
        assert ours.argmax() == theirs.argmax()
