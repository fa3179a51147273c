"""Random weights in published layouts, and the reference implementations that they come from."""

import argparse
import json
import os
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops.misc import FrozenBatchNorm2d

STRUCTURE_COUNT, LABEL_COUNT = 36, 14
ADDED = (
    ["<image>", "<image_start>", "<image_end>", "<box>", "</box>", "<emb>", "</emb>"]
    + [f"<obj_{i}>" for i in range(STRUCTURE_COUNT)]
    + ["<ref>", "</ref>"]
)
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
SENTENCES = [
    "Left lung is healthy.",
    "Right lung shows Pleural Effusion and atelectasis.",
    "Cardiac silhouette is enlarged, naïve 12.5 cm!",
    "heart border: unremarkable (no œdema) 肺",
]
CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role'])"
    " + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


class Evil:
    """An object that creates a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


# ---- the perception module, made of torchvision's and torch's modules


class Encoder(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x, positions):
        placed = x + positions
        x = self.norm1(x + self.self_attn(placed, placed, x, need_weights=False)[0])
        return self.norm2(x + self.linear2(self.linear1(x).relu()))


class Decoder(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x, queries, memory, positions):
        placed = x + queries
        x = self.norm1(x + self.self_attn(placed, placed, x, need_weights=False)[0])
        x = self.norm2(x + self.multihead_attn(x + queries, memory + positions, memory, need_weights=False)[0])
        return self.norm3(x + self.linear2(self.linear1(x).relu()))


class Perception(nn.Module):
    """DETR with a query for each structure and a class token, with the published names."""

    def __init__(self, blocks=(3, 4, 6, 3), width=256, heads=4, inner=1024, layers=(4, 4), embedding=16, vit=None):
        super().__init__()
        body = vit or ResNet(Bottleneck, list(blocks), norm_layer=FrozenBatchNorm2d)
        if not vit:
            body.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
            del body.fc
        self.backbone = nn.ModuleList([nn.ModuleDict({"body": body})])
        self.input_proj = nn.Conv2d(vit.config.hidden_size if vit else 2048, width, 1)
        self.transformer = nn.Module()
        self.transformer.encoder = nn.Module()
        self.transformer.encoder.layers = nn.ModuleList(Encoder(width, heads, inner) for _ in range(layers[0]))
        self.transformer.decoder = nn.Module()
        self.transformer.decoder.layers = nn.ModuleList(Decoder(width, heads, inner) for _ in range(layers[1]))
        self.transformer.decoder.norm = nn.LayerNorm(width)
        self.transformer.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.transformer.cls_pos = nn.Parameter(torch.randn(1, 1, width))
        self.query_embed = nn.Embedding(STRUCTURE_COUNT, width)
        self.bbox_embed = nn.Module()
        self.bbox_embed.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4)])
        self.anat_obj_embs = nn.Module()
        self.anat_obj_embs.mha = nn.MultiheadAttention(width, 2, batch_first=True)
        self.anat_obj_embs.linear = nn.Linear(width, embedding)
        self.image_class_embed = nn.Linear(width, LABEL_COUNT)
        for name, tensor in self.state_dict().items():  # no parameter stays at zero or one
            noise = torch.randn_like(tensor)
            if name.startswith("backbone") and vit:
                tensor.add_(0.05 * noise)
            elif "bn" in name or "downsample.1" in name:
                tensor.copy_({"weight": 0.4, "running_var": 1.0}.get(name.split(".")[-1], 0.0) + 0.1 * noise.clamp(-2, 2))
            elif name.endswith("bias") or "norm" in name:
                tensor.add_(0.1 * noise)
            elif "in_proj" in name:
                tensor.mul_(4)  # sharp attention, so that structures differ

    @staticmethod
    def positions(side, width):
        """DETR's sine encoding, normalised, y before x: `[1, side * side, width]`."""
        half = width // 2
        at = torch.arange(1, side + 1, dtype=torch.float64) / (side + 1e-6) * 2 * torch.pi
        scale = 10000 ** (2 * torch.arange(half).div(2, rounding_mode="floor") / half)
        angle = at[:, None] / scale
        code = torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], 2).flatten(1).float()
        y, x = code[:, None].expand(side, side, half), code[None].expand(side, side, half)
        return torch.cat([y, x], 2).flatten(0, 1)[None]

    def features(self, image):
        body = self.backbone[0]["body"]
        if not isinstance(body, ResNet):
            mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, :, None, None]
            tokens = body((image.expand(-1, 3, -1, -1) - mean) / deviation).last_hidden_state
            side = image.shape[-1] // body.config.patch_size
            return tokens[:, 1 + body.config.num_register_tokens :].mT.unflatten(2, (side, side))
        x = body.maxpool(body.relu(body.bn1(body.conv1(image))))
        return body.layer4(body.layer3(body.layer2(body.layer1(x))))

    @torch.no_grad()
    def forward(self, image):
        x = self.input_proj(self.features(image))
        batch, width, side, _ = x.shape
        sine = self.positions(side, width)
        x = torch.cat([self.transformer.cls_token.expand(batch, -1, -1), x.flatten(2).transpose(1, 2)], 1)
        for layer in self.transformer.encoder.layers:
            x = layer(x, torch.cat([self.transformer.cls_pos, sine], 1))
        cls, memory = x[:, 0], x[:, 1:]
        queries = self.query_embed.weight[None].expand(batch, -1, -1)
        x = torch.zeros_like(queries)
        for layer in self.transformer.decoder.layers:
            x = layer(x, queries, memory, sine)
        x = self.transformer.decoder.norm(x)
        first, second, last = self.bbox_embed.layers
        described = self.anat_obj_embs.mha(x, memory, memory, need_weights=False)[0]
        return {
            "boxes": last(second(first(x).relu()).relu()).sigmoid(),
            "object_embeddings": self.anat_obj_embs.linear(described),
            "image_tokens": memory,
            "image_logits": self.image_class_embed(cls),
        }


def vision_transformer(gated):
    """A small DINOv3 with two heads of width 64 and four registers."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        hidden_size=128, intermediate_size=160, num_hidden_layers=3, num_attention_heads=2, num_register_tokens=0 if gated else 4,
        use_gated_mlp=gated, hidden_act="silu" if gated else "gelu", key_bias=gated,
    )  # fmt: skip
    return DINOv3ViTModel(config).eval()


def text_projection(width, embedding, inner=512):
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, embedding))


def perception_checkpoint(path, perception, projection, marker, encoder=None):
    """Writes a training checkpoint in the published layout, with optimiser and settings, and an object that must not be executed."""
    model = {f"vis_model.{name}": tensor for name, tensor in perception.state_dict().items()}
    model |= {f"text_model.project_head.proj.{name}": tensor for name, tensor in projection.state_dict().items()}
    for name, tensor in (encoder.state_dict() if encoder else {}).items():
        model[f"text_model.text_model.{name}"] = tensor
    optimiser = torch.optim.AdamW(projection.parameters())
    projection(torch.randn(2, projection[0].in_features)).sum().backward()
    optimiser.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 200)
    arguments = argparse.Namespace(lr=1e-4, hidden_dim=256, output_dir=Path("somewhere"))
    torch.save(
        {
            "model": model,
            "optimizer": optimiser.state_dict(),
            "lr_scheduler": schedule.state_dict(),
            "epoch": 44,
            "args": arguments,
            "hook": Evil(marker),
        },
        path,
    )


# ---- the language model


def gemma_tokenizer(folder, words=()):
    """A tokenizer with the structure of Gemma's and its chat template."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    characters = sorted({chr(c) for c in range(33, 127)} | {"▁", "\n"})
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=CONTROL + [f"<0x{byte:02X}>" for byte in range(256)],
        initial_alphabet=characters,
        show_progress=False,
    )
    # As in Gemma's tokenizer, sequences of line breaks are added tokens, but not special ones.
    breaks = [AddedToken("\n" * count, normalized=False) for count in (2, 3, 4)]
    tokenizer.train_from_iterator([*SENTENCES, "Task: Where is the heart? Likely findings: emb: box: (512,1024)"] * 20, trainer)
    tokenizer.add_tokens([*breaks, *(AddedToken(word, normalized=False) for word in words)])
    names = {name.strip("<>") + "_token": name for name in CONTROL[:4]}
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=CONTROL[4:], **names)
    whole.chat_template = CHAT
    whole.save_pretrained(folder)
    return whole


def gemma_config(rows):
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        vocab_size=rows,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=24,
        sliding_window=48,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        max_position_embeddings=131072,
    )


def shaken(model):
    """Adds noise to all parameters, including norms."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.dim() == 1 else 0.06))
    return model.eval()


def gemma_with_tower(rows):
    """The multimodal model with a small vision tower."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    tower["patch_size"] = 14
    tokens = {"image_token_index": 7, "boi_token_index": 8, "eoi_token_index": 9}
    config = Gemma3Config(text_config=gemma_config(rows).to_dict(), vision_config=tower, mm_tokens_per_image=4, **tokens)
    return shaken(Gemma3ForConditionalGeneration(config))


def projectors(width, embedding, hidden):
    def head(inputs):
        return nn.Sequential(nn.Linear(inputs, 512), nn.GELU(), nn.LayerNorm(512), nn.Linear(512, hidden))

    return {"image_projectionhead": shaken(head(width)), "obj_projectionhead": shaken(head(embedding))}


def projector_state(heads):
    return {f"{name}.proj.{key}": tensor for name, head in heads.items() for key, tensor in head.state_dict().items()}


def with_adapter(model, rank, alpha, saved):
    """The model with random adapters on its decoder's linear layers."""
    from peft import LoraConfig, get_peft_model

    layers = r".*layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
    tower = getattr(model.model, "language_model", None)
    layers = r".*language_model\." + layers if tower is not None else layers
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.05, target_modules=layers, modules_to_save=saved))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return adapted.eval()


def tuned_checkpoint(path, adapted, heads):
    """Writes the fine-tuned parts in the published layout."""
    parts = ["lora_", "modules_to_save", "original_module"]
    core = {name: tensor for name, tensor in adapted.state_dict().items() if any(part in name for part in parts)}
    torch.save({"apm": None, "LM": {"core_model": core, "wrapper": projector_state(heads)}}, path)


# ---- the sentence encoder


def bert_vocabulary():
    pieces = {piece for sentence in SENTENCES for word in sentence.lower().split() for piece in (word[:3], "##" + word[3:6], word[0])}
    letters = [chr(c) for c in range(97, 123)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *letters, *("##" + c for c in letters), *".,!:()", *sorted(pieces - {"##", *letters})]


def bert(folder, published):
    """Writes a BERT model in the layout of PubMedBERT (a vocabulary, and an old pickle with heads) or in that of transformers 5."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    folder.mkdir()
    vocabulary = bert_vocabulary()
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80,
        max_position_embeddings=64,
    )  # fmt: skip
    model = shaken(BertForMaskedLM(config))
    tokenizer = BertTokenizerFast(vocab={token: i for i, token in enumerate(vocabulary)})
    if published:
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
        (folder / "config.json").write_text(json.dumps({**config.to_dict(), "model_type": "bert"}))
        torch.save(model.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    else:
        model.bert.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return model.bert, tokenizer
