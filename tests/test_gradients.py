"""One optimiser step against PyTorch: for the same parameters and batch, all losses and the gradients of all parameters agree.

The models here are independent of the trainer's: torchvision's ResNet blocks, PyTorch's attention and losses, transformers' Gemma 3 and
peft's adapters. `step` is an example of the trainer's crate, which calls the same functions as the training loops.
"""

import copy
import json
import math
import os
import re
import subprocess

import pytest
import torch
import torch.nn.functional as F
from conftest import needed
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FrozenBatchNorm2d, box_convert, generalized_box_iou
from transformers import DINOv3ViTConfig, DINOv3ViTModel, Gemma3ForCausalLM, Gemma3TextConfig
from transformers.image_utils import IMAGENET_DEFAULT_MEAN as IMAGENET_MEAN
from transformers.image_utils import IMAGENET_DEFAULT_STD as IMAGENET_STD

LOSS, GRADIENT = 1e-5, 1e-4
STRUCTURES, LABELS = 36, 14


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sets one thread, because models of this size are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def step(root, tmp_path_factory):
    """Runs the trainer's example `step`. Returns losses and gradients by name."""
    program = needed(root / "target/release/examples/step", "trainer")

    def step(phase: str, models: dict, parameters: dict, batch: dict, packs=(), losses=None) -> dict:
        folder = tmp_path_factory.mktemp(phase)
        tables = lambda tables: "\n".join(f"[{name}]\n{toml(table)}" for name, table in tables.items())
        (folder / "models.toml").write_text(tables(models))
        (folder / "losses.toml").write_text(toml(losses or {}))
        (folder / "packs.json").write_text(json.dumps(packs))
        whole = lambda tensors: {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
        save_file(whole({name: tensor.float() for name, tensor in parameters.items()}), folder / "params.safetensors")
        save_file(whole(batch), folder / "batch.safetensors")
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([program, phase, folder], env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return load_file(folder / "step.safetensors")

    return step


def toml(table: dict) -> str:
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in table.items())


def deviations(found: dict, losses: dict, gradients: dict) -> tuple[float, float, str]:
    """Largest relative deviation of a loss; largest deviation of a gradient's value relative to the gradient's largest value; and the name
    of that gradient."""
    loss = max(abs(found[name].item() - value.item()) / abs(value.item()) for name, value in losses.items())
    ours = {name.removeprefix("gradient."): value for name, value in found.items() if name.startswith("gradient.")}
    assert ours.keys() == gradients.keys(), ours.keys() ^ gradients.keys()
    largest = max(value.abs().max().item() for value in gradients.values())
    worst, where = 0.0, ""
    for name, theirs in gradients.items():
        assert ours[name].shape == theirs.shape, name
        size = theirs.abs().max().item()
        # A parameter without influence has a gradient of zero up to rounding. It is compared with the size of the others.
        scale = size if size > 1e-6 * largest else largest
        deviation = (ours[name].double() - theirs.double()).abs().max().item() / scale
        if deviation > worst:
            worst, where = deviation, name
    return loss, worst, where


def compare(what: str, found: dict, losses: dict, gradients: dict):
    loss, gradient, where = deviations(found, losses, gradients)
    print(f"{what}: {len(losses)} losses within {loss:.1e}, {len(gradients)} gradients within {gradient:.1e} ({where})")
    assert loss < LOSS
    assert gradient < GRADIENT, where


def differs(what: str, found: dict, losses: dict, gradients: dict):
    """Checks that a mistake would exceed the tolerance."""
    loss, gradient, _ = deviations(found, losses, gradients)
    print(f"  {what} would move losses by {loss:.1e} and gradients by {gradient:.1e}")
    assert gradient > 10 * GRADIENT


# ---- the perception module

SIZES = {
    "image_size": 64,
    "blocks": [1, 2, 1, 1],
    "planes": 4,
    "width": 24,
    "heads": 3,
    "feed_forward": 44,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "embedding": 6,
    "dropout": 0.0,
}
TEXT = {"width": 20, "projection": 28}


class Layer(nn.Module):
    """A post-norm layer of DETR, with cross-attention to `memory` in the decoder."""

    def __init__(self, width: int, heads: int, feed_forward: int, crossed: bool):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        if crossed:
            self.multihead_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        if crossed:
            self.norm3 = nn.LayerNorm(width)

    def forward(self, x, place, memory=None, memory_place=None):
        x = self.norm1(x + self.self_attn(x + place, x + place, x, need_weights=False)[0])
        if memory is not None:
            x = self.norm2(x + self.multihead_attn(x + place, memory + memory_place, memory, need_weights=False)[0])
        last = self.norm2 if memory is None else self.norm3
        return last(x + self.linear2(self.linear1(x).relu()))


def sine(grid: int, width: int) -> torch.Tensor:
    """DETR's sine encoding of a square grid without a mask, `[1, grid * grid, width]`."""
    ones = torch.ones(1, grid, grid, dtype=torch.float64)
    axes = []
    for axis in (1, 2):
        at = ones.cumsum(axis)
        at = at / (at.select(axis, grid - 1).unsqueeze(axis) + 1e-6) * 2 * math.pi
        channels = torch.arange(width // 2, dtype=torch.float64)
        angle = at[..., None] / 10000 ** (2 * channels.div(2, rounding_mode="floor") / (width // 2))
        axes.append(torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), -1).flatten(3))
    return torch.cat(axes, -1).flatten(1, 2)


def resnet(norm) -> tuple[nn.Module, int]:
    """A ResNet of torchvision's blocks for one grey channel. Returns it and its number of output channels."""
    body, channels = nn.Module(), SIZES["planes"]
    body.conv1, body.bn1 = nn.Conv2d(1, channels, 7, 2, 3, bias=False), norm(channels)
    for stage, blocks in enumerate(SIZES["blocks"]):
        planes, layers = SIZES["planes"] * 2**stage, []
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            down = nn.Sequential(nn.Conv2d(channels, 4 * planes, 1, stride, bias=False), norm(4 * planes)) if not block else None
            layers.append(Bottleneck(channels, planes, stride, down, norm_layer=norm))
            channels = 4 * planes
        setattr(body, f"layer{stage + 1}", nn.Sequential(*layers))
    return body, channels


class Perception(nn.Module):
    """The perception module and the text projection, with the published names; `vit` replaces the ResNet."""

    def __init__(self, trained_norms: bool, extractor: bool, vit: DINOv3ViTModel | None = None):
        super().__init__()
        width, embedding = SIZES["width"], SIZES["embedding"]
        body, channels = (vit, vit.config.hidden_size) if vit else resnet(nn.BatchNorm2d if trained_norms else FrozenBatchNorm2d)
        self.backbone = nn.ModuleList([nn.Module()])
        self.backbone[0].body = body
        self.input_proj = nn.Conv2d(channels, width, 1)
        self.transformer = transformer = nn.Module()
        transformer.cls_token, transformer.cls_pos = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 1, width))
        stack = lambda count, crossed: nn.ModuleList(Layer(width, SIZES["heads"], SIZES["feed_forward"], crossed) for _ in range(count))
        transformer.encoder, transformer.decoder = nn.Module(), nn.Module()
        transformer.encoder.layers = stack(SIZES["encoder_layers"], False)
        transformer.decoder.layers = stack(SIZES["decoder_layers"], True)
        transformer.decoder.norm = nn.LayerNorm(width)
        self.query_embed = nn.Embedding(STRUCTURES, width)
        self.bbox_embed = nn.Module()
        self.bbox_embed.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4)])
        self.anat_obj_embs = nn.Module()
        if extractor:
            self.anat_obj_embs.mha = nn.MultiheadAttention(width, 2, batch_first=True)
        self.anat_obj_embs.linear = nn.Linear(width, embedding)
        self.image_class_embed = nn.Linear(width, LABELS)
        self.project_head = nn.Module()
        inner = TEXT["projection"]
        self.project_head.proj = nn.Sequential(nn.Linear(TEXT["width"], inner), nn.ReLU(), nn.Linear(inner, embedding))

    def features(self, image):
        body = self.backbone[0].body
        if isinstance(body, DINOv3ViTModel):
            # Mean and deviation of ImageNet, as in pretraining.
            mean, deviation = (torch.tensor(x, dtype=image.dtype)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
            tokens = body((image.expand(-1, 3, -1, -1) - mean) / deviation).last_hidden_state
            side = image.shape[-1] // body.config.patch_size
            return tokens[:, 1 + body.config.num_register_tokens :].mT.unflatten(2, (side, side))
        x = F.max_pool2d(body.bn1(body.conv1(image)).relu(), 3, 2, 1)
        return body.layer4(body.layer3(body.layer2(body.layer1(x))))

    def forward(self, image):
        x = self.input_proj(self.features(image))
        batch, grid = x.shape[0], x.shape[-1]
        place = sine(grid, SIZES["width"])
        x = torch.cat([self.transformer.cls_token.expand(batch, -1, -1), x.flatten(2).mT], 1)
        for layer in self.transformer.encoder.layers:
            x = layer(x, torch.cat([self.transformer.cls_pos, place], 1))
        cls, memory = x[:, 0], x[:, 1:]
        objects, queries = torch.zeros(batch, STRUCTURES, x.shape[-1], dtype=x.dtype), self.query_embed.weight[None]
        for layer in self.transformer.decoder.layers:
            objects = layer(objects, queries, memory, place)
        objects = self.transformer.decoder.norm(objects)
        first, second, third = self.bbox_embed.layers
        boxes = third(second(first(objects).relu()).relu()).sigmoid()
        if hasattr(self.anat_obj_embs, "mha"):
            objects = self.anat_obj_embs.mha(objects, memory, memory, need_weights=False)[0]
        return boxes, self.anat_obj_embs.linear(objects), self.image_class_embed(cls)


def contrastive(objects, projected, frozen, temperature, renormalised=False):
    """Contrastive loss (paper, eq. S1 to S4): both directions have the frozen sentences' similarities as targets; the columns' target is
    the transpose."""
    u, v, s = (F.normalize(x, dim=-1) for x in (objects, projected, frozen))
    logits, target = u @ v.T / temperature, (s @ s.T / temperature).softmax(-1)
    columns = target.T / target.T.sum(-1, keepdim=True) if renormalised else target.T
    divergence = lambda logits, target: F.kl_div(logits.log_softmax(-1), target, reduction="batchmean")
    return (divergence(logits, target) + divergence(logits.T, columns)) / 2


def clip(objects, projected, temperature):
    logits = F.normalize(objects, dim=-1) @ F.normalize(projected, dim=-1).T / temperature
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def perception_losses(model: Perception, batch: dict, weights: dict, mistake="") -> dict:
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    boxes, embeddings, logits = model(batch["image"])
    there = batch["present"].bool() if mistake != "absent boxes" else torch.ones_like(batch["present"]).bool()
    found, target = boxes[there], batch["boxes"][there]
    corners = [box_convert(x, "cxcywh", "xyxy") for x in (found, target)]
    frozen = batch["frozen"][batch["sentences"][batch["present"].bool()]]
    objects, projected = embeddings[batch["present"].bool()], model.project_head.proj(frozen)
    aligned = (
        clip(objects, projected, weights["temperature"])
        if weights["clip"]
        else contrastive(objects, projected, frozen, weights["temperature"], mistake == "renormalised columns")
    )
    parts = {
        "l1": F.l1_loss(found, target, reduction="sum") / there.sum(),
        "giou": (1 - generalized_box_iou(*corners).diag()).mean(),
        "labels": F.binary_cross_entropy_with_logits(logits, batch["labels"]),
        "contrastive": aligned,
    }
    losses = {f"loss.{name}": part for name, part in parts.items()}
    return losses | {"loss": sum(weights[name] * part for name, part in parts.items())}


def gradients(model: nn.Module, loss: torch.Tensor) -> dict:
    model.zero_grad()
    loss.backward()
    return {name: tensor.grad.clone() for name, tensor in model.named_parameters() if tensor.grad is not None}


@torch.no_grad()
def shake(model: nn.Module):
    """Adds noise to all parameters, because zeros and ones would hide mistakes."""
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() == 1:
            tensor.add_(torch.randn_like(tensor) * 0.1)


class Margin(TorchFunctionMode):
    """Smallest absolute input of all ReLUs, whose gradient jumps at zero."""

    smallest = math.inf

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.relu, torch.relu_, torch.Tensor.relu, F.relu):
            self.smallest = min(self.smallest, args[0].abs().min().item())
        return function(*args, **(kwargs or {}))


def made_perception(trained_norms: bool, extractor: bool, make_vit=lambda: None) -> tuple[Perception, dict]:
    """A module and a batch for which no input of a ReLU is so close to zero that rounding could change its sign."""
    images, sentences, width = 3, 17, TEXT["width"]
    for seed in range(100):
        torch.manual_seed(seed)
        model = Perception(trained_norms, extractor, make_vit())
        shake(model)
        batch = {
            "image": torch.rand(images, 1, SIZES["image_size"], SIZES["image_size"]),
            "boxes": torch.rand(images, STRUCTURES, 4) * 0.3 + 0.2,
            "present": (torch.rand(images, STRUCTURES) < 0.9).float(),
            "labels": (torch.rand(images, LABELS) < 0.3).float(),
            "sentences": torch.randint(sentences, (images, STRUCTURES)),
            # The embeddings are similar, as those of real sentences are, so that targets are neither hard nor uniform.
            "frozen": torch.randn(1, width) + 0.15 * torch.randn(sentences, width),
        }
        with torch.no_grad(), Margin() as margin:
            copy.deepcopy(model).double()(batch["image"].double())
        if margin.smallest > 1e-5:
            return model, batch
    pytest.fail("no seed keeps ReLUs away from zero")


@pytest.mark.parametrize("trained_norms,extractor,hard", [(True, True, False), (False, True, False), (True, False, True)])
def test_perception(step, trained_norms, extractor, hard):
    model, batch = made_perception(trained_norms, extractor)
    weights = {"l1": 5.0, "giou": 3.0, "labels": 2.0, "contrastive": 1.0, "temperature": 0.01, "clip": hard}
    models = {"apm": SIZES | {"feature_extractor": extractor, "train_batch_norm": trained_norms}, "text": TEXT}
    parameters = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    found = step("apm", models, parameters, batch, losses=weights)
    # The reference computes in double precision, so that deviations are the trainer's rounding.
    model.double()
    losses = perception_losses(model, batch, weights)
    compare(f"perception, norms trained {trained_norms}, clip {hard}", found, losses, gradients(model, losses["loss"]))
    for mistake in ["absent boxes"] + ["renormalised columns"] * (not hard):
        losses = perception_losses(model, batch, weights, mistake)
        differs(mistake, found, losses, gradients(model, losses["loss"]))


DINO = {"patch": 8, "width": 24, "layers": 3, "heads": 2, "feed_forward": 52}


def dinov3(registers: int, gated: bool) -> DINOv3ViTModel:
    config = DINOv3ViTConfig(
        patch_size=DINO["patch"],
        hidden_size=DINO["width"],
        num_hidden_layers=DINO["layers"],
        num_attention_heads=DINO["heads"],
        intermediate_size=DINO["feed_forward"],
        num_register_tokens=registers,
        use_gated_mlp=gated,
        hidden_act="silu" if gated else "gelu",
        key_bias=gated,
    )
    # The encoder is in evaluation mode, because in training it changes positions at random.
    model = DINOv3ViTModel(config).eval()
    for tensor in model.parameters():
        if tensor.dim() > 1:
            nn.init.normal_(tensor, std=DINO["width"] ** -0.5)
    return model


@pytest.mark.parametrize("registers,gated", [(3, False), (0, True)])
def test_perception_with_dinov3(step, registers, gated):
    model, batch = made_perception(False, True, lambda: dinov3(registers, gated))
    own = DINO | {"registers": registers, "gated": gated, "biases": [True, gated, True]}
    models = {"apm": SIZES, "apm.dino": own, "text": TEXT}
    # In published checkpoints, layers are directly below the model. The mask token of pretraining and empty registers are not used.
    published = lambda tensors: {
        name.replace("body.model.layer", "body.layer"): tensor
        for name, tensor in tensors.items()
        if "mask_token" not in name and tensor.numel()
    }
    found = step("apm", models, published(model.state_dict()), batch)
    model.double()
    weights = {"l1": 5.0, "giou": 3.0, "labels": 2.0, "contrastive": 1.0, "temperature": 0.01, "clip": False}
    losses = perception_losses(model, batch, weights)
    compare(f"perception with DINOv3, {registers} registers, gated {gated}", found, losses, published(gradients(model, losses["loss"])))
    model.backbone[0].body.rope_embeddings.inv_freq *= 1.01
    losses = perception_losses(model, batch, weights)
    differs("positions further apart by a hundredth", found, losses, published(gradients(model, losses["loss"])))


# ---- the language model

PATCHES, IMAGE_WIDTH, EMBEDDING, HIDDEN, INNER = 9, 24, 6, 40, 512
LANGUAGE = {
    "vocab_size": 131,
    "hidden_size": HIDDEN,
    "intermediate_size": 72,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 20.0,
    "sliding_window": 7,
    "sliding_window_pattern": 3,
    "rope_factor": 4.0,
    "max_position_embeddings": 64,
}
LORA = {"rank": 3, "alpha": 6.0, "dropout": 0.0}


class Projector(nn.Module):
    """Projects image tokens and object embeddings to the decoder's width."""

    def __init__(self):
        super().__init__()
        for name, inputs in [("image_projectionhead", IMAGE_WIDTH), ("obj_projectionhead", EMBEDDING)]:
            head = nn.Module()
            head.proj = nn.Sequential(nn.Linear(inputs, INNER), nn.GELU(), nn.LayerNorm(INNER), nn.Linear(INNER, HIDDEN))
            setattr(self, name, head)

    def forward(self, tokens, objects):
        return torch.cat([self.image_projectionhead.proj(tokens), self.obj_projectionhead.proj(objects)], 1)


def gemma(tied: bool, window=LANGUAGE["sliding_window"]) -> Gemma3ForCausalLM:
    same = {name: value for name, value in LANGUAGE.items() if not name.startswith(("sliding", "rope", "query"))}
    pattern = LANGUAGE["sliding_window_pattern"]
    kinds = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(LANGUAGE["num_hidden_layers"])]
    config = Gemma3TextConfig(
        **same,
        query_pre_attn_scalar=int(LANGUAGE["query_pre_attn_scalar"]),
        sliding_window=window,
        layer_types=kinds,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": LANGUAGE["rope_factor"]},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        tie_word_embeddings=tied,
        attn_implementation="eager",
        attention_dropout=0.0,
    )
    model = Gemma3ForCausalLM(config).float()
    shake(model)
    return model


def adapted(model: Gemma3ForCausalLM, tied: bool):
    """The model with peft's adapters on all linear layers, and with embedding table and output layer trained in full."""
    settings = LoraConfig(
        r=LORA["rank"],
        lora_alpha=LORA["alpha"],
        lora_dropout=0.0,
        target_modules=r".*\.layers\..*_proj",
        modules_to_save=None if tied else ["embed_tokens", "lm_head"],
    )
    out = get_peft_model(model, settings)
    for name, tensor in out.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(tensor, std=0.1)
        if tied and name.endswith("embed_tokens.weight"):
            tensor.requires_grad_(True)
    return out


def published(name: str) -> str | None:
    """The trainer's name of a parameter of peft or transformers; `None` for a copy that is not used."""
    if "original_module" in name:
        return None
    name = name.removeprefix("base_model.model.")
    return re.sub(r"\.(base_layer|default|modules_to_save)(?=\.)", "", name)


def language_loss(model, projector, batch: dict, packs: list, by_tokens=False) -> torch.Tensor:
    """The loss with each question in a sequence of its own after the context. The weight of an answer is the root of its length."""
    features = projector(batch["image_tokens"], batch["object_embeddings"]) if batch else None
    total, counted = 0.0, 0.0
    for number, pack in enumerate(packs):
        for question, answer in pack["turns"]:
            ids = torch.tensor(pack["ids"] + question + answer)
            hidden = model.get_input_embeddings()(ids)
            if features is not None:
                index = torch.tensor(pack["visual_index"] + [-1] * (len(question) + len(answer)))
                hidden = torch.where((index >= 0)[:, None], features[number][index.clamp(min=0)], hidden)
            logits = model(inputs_embeds=hidden[None], use_cache=False).logits[0]
            weight = 1.0 if by_tokens else 1 / math.sqrt(len(answer))
            first = len(pack["ids"]) + len(question) - 1
            total = total + weight * F.cross_entropy(logits[first:-1], torch.tensor(answer), reduction="sum")
            counted += weight * len(answer)
    return total / counted


def made_packs() -> list:
    """Three contexts of different lengths with two to four questions each, and with visual features."""
    draw = lambda count: torch.randint(LANGUAGE["vocab_size"], (count,)).tolist()
    packs = []
    for length, turns in [(19, [(3, 5), (4, 1), (2, 9), (6, 2)]), (31, [(5, 4), (3, 3)]), (12, [(2, 12), (7, 1), (1, 6)])]:
        index = torch.where(torch.rand(length) < 0.4, torch.randint(PATCHES + STRUCTURES, (length,)), -1)
        packs.append({"ids": draw(length), "visual_index": index.tolist(), "turns": [(draw(q), draw(a)) for q, a in turns]})
    return packs


PHASES = [("language", True), ("language", False), ("align", True), ("instruct", True), ("instruct", False), ("full", True)]


@pytest.mark.parametrize("phase,tied", PHASES)
def test_language(step, phase, tied):
    torch.manual_seed(6)
    base, projector, packs = gemma(tied), Projector(), made_packs()
    shake(projector)
    batch = {} if phase == "language" else {
        "image_tokens": torch.randn(len(packs), PATCHES, IMAGE_WIDTH),
        "object_embeddings": torch.randn(len(packs), STRUCTURES, EMBEDDING),
    }
    model = adapted(base, tied) if phase == "instruct" else base
    if phase == "align":
        model.requires_grad_(False)
    whole = nn.ModuleDict({"model": model, "projector": projector})

    def ours(tensors) -> dict:
        out = {}
        for name, tensor in tensors:
            part, name = name.split(".", 1)
            if part == "model":
                name = published(name)
            if name and not (tied and name == "lm_head.weight") and (batch or part == "model"):
                out[name] = tensor
        return out

    models = {
        "apm": {"width": IMAGE_WIDTH, "embedding": EMBEDDING},
        "language": LANGUAGE | {"tie_word_embeddings": tied},
        "lora": LORA,
    }
    found = step(phase, models, ours(whole.state_dict().items()), batch, packs)
    loss = language_loss(model, projector, batch, packs)
    compare(f"{phase}, tied {tied}", found, {"loss": loss}, ours(gradients(whole, loss).items()))
    loss = language_loss(model, projector, batch, packs, by_tokens=True)
    differs("weighing by tokens", found, {"loss": loss}, ours(gradients(whole, loss).items()))
    if phase == "language":
        wider = gemma(tied, LANGUAGE["sliding_window"] + 1)
        wider.load_state_dict(base.state_dict())
        whole = nn.ModuleDict({"model": wider, "projector": projector})
        loss = language_loss(wider, projector, batch, packs)
        differs("a window wider by one", found, {"loss": loss}, ours(gradients(whole, loss).items()))
