"""The perception module and its losses in PyTorch, independent of the trainer: torchvision's ResNet blocks and box losses, PyTorch's
attention, transformers' DINOv3.
"""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from gradients import LABEL_COUNT, STRUCTURE_COUNT, shake
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FrozenBatchNorm2d, box_convert, generalized_box_iou
from transformers import DINOv3ViTModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN as IMAGENET_MEAN
from transformers.image_utils import IMAGENET_DEFAULT_STD as IMAGENET_STD

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
    "frozen_stages": 0,
}
TEXT = {"width": 20, "projection": 28}


class Layer(nn.Module):
    """A post-norm layer of DETR, with cross-attention to `memory` in the decoder. With `reseeded`, its dropout draws from a generator whose
    seed is drawn before."""

    reseeded = False

    def __init__(self, width: int, heads: int, feed_forward: int, crossed: bool, dropout: float):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        if crossed:
            self.multihead_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        if crossed:
            self.norm3 = nn.LayerNorm(width)

    def forward(self, x, place, memory=None, memory_place=None):
        if self.reseeded:
            reseed()
        # What is dropped depends on the order of the values in memory.
        attend = lambda attention, *inputs: self.drop(attention(*inputs, need_weights=False)[0].contiguous())
        x = self.norm1(x + attend(self.self_attn, x + place, x + place, x))
        if memory is not None:
            x = self.norm2(x + attend(self.multihead_attn, x + place, memory + memory_place, memory))
        last = self.norm2 if memory is None else self.norm3
        return last(x + self.drop(self.linear2(self.drop(self.linear1(x).relu()))))


def reseed():
    """Seeds the generator with a number that it draws, as the trainer does before a layer that it will run twice."""
    torch.manual_seed(torch.randint(2**63 - 1, (1,)).item())


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

    def __init__(self, trained_norms: bool, extractor: bool, vit: DINOv3ViTModel | None = None, dropout=0.0):
        super().__init__()
        width, embedding = SIZES["width"], SIZES["embedding"]
        body, channels = (vit, vit.config.hidden_size) if vit else resnet(nn.BatchNorm2d if trained_norms else FrozenBatchNorm2d)
        self.backbone = nn.ModuleList([nn.Module()])
        self.backbone[0].body = body
        self.input_proj = nn.Conv2d(channels, width, 1)
        self.transformer = transformer = nn.Module()
        transformer.cls_token, transformer.cls_pos = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 1, width))
        sizes = width, SIZES["heads"], SIZES["feed_forward"]
        stack = lambda count, crossed: nn.ModuleList(Layer(*sizes, crossed, dropout) for _ in range(count))
        transformer.encoder, transformer.decoder = nn.Module(), nn.Module()
        transformer.encoder.layers = stack(SIZES["encoder_layers"], False)
        transformer.decoder.layers = stack(SIZES["decoder_layers"], True)
        transformer.decoder.norm = nn.LayerNorm(width)
        self.query_embed = nn.Embedding(STRUCTURE_COUNT, width)
        self.bbox_embed = nn.Module()
        self.bbox_embed.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4)])
        self.anat_obj_embs = nn.Module()
        if extractor:
            self.anat_obj_embs.mha = nn.MultiheadAttention(width, 2, batch_first=True)
        self.anat_obj_embs.linear = nn.Linear(width, embedding)
        self.image_class_embed = nn.Linear(width, LABEL_COUNT)
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
        """Boxes of each decoder layer, object embeddings, logits of the labels."""
        x = self.input_proj(self.features(image))
        batch, grid, kind = x.shape[0], x.shape[-1], self.input_proj.weight.dtype
        place = sine(grid, SIZES["width"]).to(x.device, kind)
        x = torch.cat([self.transformer.cls_token.expand(batch, -1, -1), x.flatten(2).mT], 1)
        for layer in self.transformer.encoder.layers:
            x = layer(x, torch.cat([self.transformer.cls_pos, place], 1))
        cls, memory = x[:, 0], x[:, 1:]
        objects, queries = torch.zeros(batch, STRUCTURE_COUNT, x.shape[-1], dtype=kind, device=x.device), self.query_embed.weight[None]
        first, second, third = self.bbox_embed.layers
        boxes = []
        for layer in self.transformer.decoder.layers:
            objects = layer(objects, queries, memory, place)
            hidden = first(self.transformer.decoder.norm(objects)).relu()
            boxes.append(third(second(hidden).relu()).sigmoid())
        objects = self.transformer.decoder.norm(objects)
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
    """The losses as the recipe's `[losses]` weigh them, in the type of the model's parameters."""
    kind = model.input_proj.weight.dtype
    batch = {name: value.to(kind) if value.is_floating_point() else value for name, value in batch.items()}
    layers, embeddings, logits = model(batch["image"])
    layers, embeddings, logits = [boxes.to(kind) for boxes in layers], embeddings.to(kind), logits.to(kind)
    all_count = weights.get("missing") == "published"
    present = torch.ones_like(batch["present"]).bool() if all_count else batch["present"].bool()
    there = present if mistake != "absent boxes" else torch.ones_like(batch["present"]).bool()
    l1, giou = 0.0, 0.0
    for boxes in layers if weights.get("aux") else layers[-1:]:
        found, target = boxes[there], batch["boxes"][there]
        corners = [box_convert(x, "cxcywh", "xyxy") for x in (found, target)]
        l1 = l1 + F.l1_loss(found, target, reduction="sum") / there.sum()
        giou = giou + (1 - generalized_box_iou(*corners).diag()).mean()
    frozen = batch["frozen"][batch["sentences"][present]]
    objects, projected = embeddings[present], model.project_head.proj(frozen).to(kind)
    aligned = (
        clip(objects, projected, weights["temperature"])
        if weights["clip"]
        else contrastive(objects, projected, frozen, weights["temperature"], mistake == "renormalised columns")
    )
    parts = {
        "l1": l1,
        "giou": giou,
        "labels": F.binary_cross_entropy_with_logits(logits, batch["labels"]),
        "contrastive": aligned,
    }
    losses = {f"loss.{name}": part for name, part in parts.items()}
    return losses | {"loss": sum(weights[name] * part for name, part in parts.items())}


class Margin(TorchFunctionMode):
    """Smallest absolute input of all ReLUs, whose gradient jumps at zero."""

    smallest = math.inf

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.relu, torch.relu_, torch.Tensor.relu, F.relu):
            self.smallest = min(self.smallest, args[0].abs().min().item())
        return function(*args, **(kwargs or {}))


def made_perception(trained_norms: bool, extractor: bool, make_vit=lambda: None, dropout=0.0, seed=7) -> tuple[Perception, dict]:
    """A module and a batch for which no input of a ReLU is so close to zero that rounding could change its sign, with what is dropped
    after this seed."""
    images, sentences, width = 3, 17, TEXT["width"]
    for made in range(100):
        torch.manual_seed(made)
        model = Perception(trained_norms, extractor, make_vit(), dropout)
        shake(model)
        batch = {
            "image": torch.rand(images, 1, SIZES["image_size"], SIZES["image_size"]),
            "boxes": torch.rand(images, STRUCTURE_COUNT, 4) * 0.3 + 0.2,
            "present": (torch.rand(images, STRUCTURE_COUNT) < 0.9).float(),
            "labels": (torch.rand(images, LABEL_COUNT) < 0.3).float(),
            "sentences": torch.randint(sentences, (images, STRUCTURE_COUNT)),
            # The embeddings are similar, as those of real sentences are, so that targets are neither hard nor uniform.
            "frozen": torch.randn(1, width) + 0.15 * torch.randn(sentences, width),
        }
        torch.manual_seed(seed)
        with torch.no_grad(), Margin() as margin:
            copy.deepcopy(model).double()(batch["image"].double())
        if margin.smallest > 1e-5:
            return model, batch
    pytest.fail("no seed keeps ReLUs away from zero")
