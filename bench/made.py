"""Models for measurements: as bundles, and in the formats of other libraries."""

import json
import re
import shutil

import numpy as np

from sides import FOLDER, REFERENCE, TRAINER, run

PARTS = FOLDER / "published"
# Sizes of a Gemma with 121 million weights, and of one with the width of MedGemma-4b. The latter has 4 layers instead of 34 and an eighth
# of the vocabulary, so that layers and output layer have about the same shares of the time as in MedGemma-4b.
GEMMA = {
    "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1,
    "sliding_window": 512,
}  # fmt: skip
WIDE = {
    "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4,
    "sliding_window": 1024,
}  # fmt: skip
# Weights of a block, for bundles and for onnxruntime-genai. Blocks of llama.cpp's Q4_0 have 32.
BLOCK = 64
# A letter that is a token by itself, for padding.
LETTER = "z"
# For each length of a prompt in tokens the side of the image and the sentence of each structure. Padding of the question does the rest.
LENGTHS = {1024: (96, f"ok {{}}{5 * LETTER}."), 2500: (1024, f"Structure {{}} is healthy{9 * LETTER}.")}


def published_parts():
    """Makes a perception module of the published size, a Gemma with 121 million weights and projectors, with random weights."""
    import published
    import torch
    from safetensors.torch import save_file

    if PARTS.exists():
        return
    PARTS.mkdir()
    torch.manual_seed(6)
    state = published.Perception().eval().state_dict()
    state |= {f"project_head.proj.{n}": t for n, t in published.text_projection(48, 16).state_dict().items()}
    save_file({n: t.contiguous() for n, t in state.items()}, PARTS / "apm.safetensors")
    published.bert(PARTS / "bert", published=False)
    language_parts(PARTS, GEMMA)


def language_parts(folder, sizes):
    """Makes a Gemma of these sizes with adapters and projectors, with random weights."""
    import published
    from safetensors.torch import save_file
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    # Numbers are tokens, as in the reference bundle, so that prompts are short enough for all lengths.
    published.gemma_tokenizer(folder / "gemma", ["\nemb:", " box:", "),(", *map(str, range(1025))])
    config = Gemma3TextConfig(vocab_size=32768, head_dim=256, query_pre_attn_scalar=256, max_position_embeddings=8192, **sizes)
    model = Gemma3ForCausalLM(config).eval()
    model.save_pretrained(folder / "gemma")
    published.with_adapter(model, 4, 8, None).save_pretrained(folder / "adapter")
    heads = published.projectors(256, 16, sizes["hidden_size"])
    save_file({n: t.contiguous() for n, t in published.projector_state(heads).items()}, folder / "adapter/projectors.safetensors")


def calibration():
    """A folder of radiographs for perception modules in int8. They are few: how long a run takes does not depend on the ranges."""
    folder = FOLDER / "calibration"
    if not (folder / "mimic-cxr-2.0.0-split.csv").exists():
        run([TRAINER, "phantom", "--out", folder, "--count", 4, "--seed", 7, "--dicom-every", 0])
    return folder / "images"


def published_bundle(name, apm, image_size=1024, sentence="Structure {} is healthy.", language=PARTS):
    """A bundle of the published sizes with a decoder in int4, exported again if the trainer has changed. `apm` is the precision of its
    perception module, `language` the folder of its language model."""
    which = "" if language == PARTS else f"-{language.name}"
    folder, bundle = FOLDER / f"run-{image_size}{which}", FOLDER / f"bundle-{name}"
    manifest, sentences = bundle / "manifest.json", [[sentence.format(i)] for i in range(36)]
    made = bundle.with_suffix(".json")
    current = json.loads(made.read_text()) if made.exists() else None
    if manifest.exists() and manifest.stat().st_mtime > TRAINER.stat().st_mtime and current == sentences:
        return bundle
    made.unlink(missing_ok=True)
    published_parts()
    if not folder.exists():
        run(
            [TRAINER, "import", "--out", folder, "--apm", PARTS / "apm.safetensors", "--image-size", image_size,
             "--text-encoder", PARTS / "bert", "--language", language / "gemma", "--adapter", language / "adapter"],
        )  # fmt: skip
    (folder / "sentences.json").write_text(json.dumps(sentences))
    shutil.rmtree(bundle, ignore_errors=True)
    options = ["--calibrate", calibration()] if apm == "int8" else []
    run([TRAINER, "export", folder, "--out", bundle, "--measure", "never", "--decoder", "int4", "--apm", apm, *options])
    made.write_text(json.dumps(sentences))
    return bundle


def language_bundle(length):
    """A bundle with which prompts of this length in tokens can be made. Its perception module is in int8."""
    image_size, sentence = LENGTHS[length]
    return published_bundle(f"int8-{image_size}", "int8", image_size, sentence)


def wide_bundle():
    """A bundle whose language model has the width of MedGemma-4b, in int4."""
    import torch

    folder = FOLDER / "wide"
    if not (folder / "adapter/projectors.safetensors").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        torch.manual_seed(7)
        language_parts(folder, WIDE)
    return published_bundle("wide", "int8", image_size=96, language=folder)


def genai_model(source, precision):
    """A Gemma for onnxruntime-genai, made by its builder with the fastest settings: logits of the last token only."""
    out = FOLDER / f"genai-{source.name}-{precision}"
    if (out / "genai_config.json").exists():
        return out
    from onnxruntime_genai.models import builder

    gemma = builder.Gemma3Model
    construct = gemma.__init__

    def flat_names(self, config, *arguments, **named):
        # The builder expects the names of transformers 4.
        config.rope_theta = config.rope_parameters["full_attention"]["rope_theta"]
        config.rope_local_base_freq = config.rope_parameters["sliding_attention"]["rope_theta"]
        construct(self, config, *arguments, **named)

    gemma.__init__, gemma.make_rope_init = flat_names, lambda self, config: None
    wanted = ["prune_lm_head=1"]
    if precision == "int4":
        wanted += [f"int4_block_size={BLOCK}", "int4_accuracy_level=4"]
    where = ["", str(source), str(out), precision, "cpu", str(FOLDER / "genai.cache")]
    builder.create_model(*where, **builder.parse_extra_options(*where, wanted))
    gemma.__init__ = construct
    return out


def reference_language():
    """A Gemma of the reference bundle's sizes with random weights, in the format of Hugging Face."""
    import published
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    out = FOLDER / "reference-language"
    if (out / "model.safetensors").exists():
        return out
    recipe = (REFERENCE.parent.parent / "recipes/reference.toml").read_text()
    section = recipe.split("[models.language]")[1].split("[")[0]
    sizes = {key: float(value) for key, value in re.findall(r"(\w+) = ([\d.]+)", section)}
    thetas = {"full_attention": sizes.pop("rope_theta"), "sliding_attention": sizes.pop("rope_local_base_freq")}
    sizes.pop("rope_factor")
    pattern, layers = int(sizes.pop("sliding_window_pattern")), int(sizes["num_hidden_layers"])
    kinds = ["full_attention" if (layer + 1) % pattern == 0 else "sliding_attention" for layer in range(layers)]
    vocabulary = json.loads((REFERENCE / "manifest.json").read_text())["decoder"]["vocabulary"]
    config = Gemma3TextConfig(
        vocab_size=vocabulary,
        layer_types=kinds,
        rope_parameters={kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()},
        **{key: int(value) for key, value in sizes.items()},
    )
    Gemma3ForCausalLM(config).eval().save_pretrained(out)
    published.gemma_tokenizer(out)
    return out


# Names of a layer's tensors in Hugging Face's files and in GGUF.
GGUF = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip


def llama_model():
    """The Gemma with 121 million weights for llama.cpp, in Q4_0."""
    import gguf
    from llama_cpp import llama_cpp
    from safetensors.numpy import load_file

    out, whole = FOLDER / "gemma.q4_0.gguf", FOLDER / "gemma.gguf"
    if out.exists():
        return out
    published_parts()
    config = json.loads((PARTS / "gemma/config.json").read_text())
    writer = gguf.GGUFWriter(whole, "gemma3")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["full_attention"]["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    # llama.cpp requires a tokenizer. Its words are not used.
    kinds = [gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.BYTE] * 256
    words = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += [f"word{i}" for i in range(config["vocab_size"] - len(words))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * (len(words) - len(kinds)))
    writer.add_token_scores([0.0] * len(words))
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    for name, tensor in load_file(PARTS / "gemma/model.safetensors").items():
        # Gemma's norms scale by 1 + weight.
        tensor = tensor.astype(np.float32) + (1 if "norm" in name else 0)
        layer = re.fullmatch(r"model\.layers\.(\d+)\.(.*)\.weight", name)
        outer = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm"}
        writer.add_tensor(f"blk.{layer[1]}.{GGUF[layer[2]]}.weight" if layer else f"{outer[name]}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    if llama_cpp.llama_model_quantize(str(whole).encode(), str(out).encode(), settings):
        raise RuntimeError(f"llama.cpp failed to quantise {whole}")
    whole.unlink()
    return out
