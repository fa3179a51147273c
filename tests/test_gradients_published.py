"""The published values, with dropout: losses, gradients and parameters after optimiser steps equal those of PyTorch.

Both sides are the same libtorch, so what is dropped is the same if both draw from its generator with the same seed and in the same order.
"""

import pytest
import torch
import torch.nn.functional as F
from gradients import STRUCTURE_COUNT, compare, differs, gradients, one_thread, shake, step  # noqa: F401 (fixtures)
from language_reference import EMBEDDING, IMAGE_WIDTH, LANGUAGE, LORA, PATCHES, Projector, adapted, gemma, made_packs, ours
from perception_reference import SIZES, TEXT, made_perception, perception_losses
from torch import nn

SEED, STEPS, RATE, DECAY, CLIP = 7, 3, 1e-3, 0.5, 0.02
OPTIMISER = {"seed": SEED, "steps": STEPS, "rate": RATE, "weight_decay": DECAY, "decays": "published", "clip": CLIP}


def trained(model: nn.Module, loss, own, decays_all=True) -> dict:
    """Changes of the parameters, by the trainer's names, after steps of torch's AdamW."""
    parameters = [tensor for tensor in model.parameters() if tensor.requires_grad]
    before = {name: tensor.detach().clone() for name, tensor in own(model.named_parameters()).items() if tensor.requires_grad}
    groups = [
        {"params": [tensor for tensor in parameters if decays_all or tensor.dim() > 1], "weight_decay": DECAY},
        {"params": [tensor for tensor in parameters if not decays_all and tensor.dim() <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=RATE)
    for _ in range(STEPS):
        torch.manual_seed(SEED)
        optimiser.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimiser.step()
    after = own(model.named_parameters())
    return {name: after[name].detach() - tensor for name, tensor in before.items()}


def furthest(found: dict, before: dict, changes: dict) -> float:
    """Largest difference of changes, relative to what steps at this rate can change. A gradient that is zero up to rounding makes a step
    of full length in any direction, so values with such gradients are left out."""
    largest = max(found[f"gradient.{name}"].abs().max() for name in changes)
    worst = 0.0
    for name, change in changes.items():
        gradient = found[f"gradient.{name}"].abs()
        clear = (gradient > 1e-2 * gradient.max()) & (gradient > 1e-5 * largest)
        own = found[f"after.{name}"].double() - before[name].double()
        if clear.any():
            worst = max(worst, ((own - change.double()).abs()[clear].max() / (RATE * STEPS)).item())
    return worst


def test_perception_as_published(step):
    dropout = 0.2
    model, batch = made_perception(False, True, dropout=dropout, seed=SEED)
    weights = {"l1": 5.0, "giou": 3.0, "labels": 2.0, "contrastive": 1.0, "temperature": 0.01, "clip": False}
    weights |= {"missing": "published", "aux": True}
    models = {"apm": SIZES | {"train_batch_norm": False, "dropout": dropout}, "text": TEXT}
    assert (batch["present"] == 0).any()
    batch["boxes"] *= batch["present"][..., None]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = step("apm", models, before, batch, losses=weights, settings=OPTIMISER)
    model.double()

    def losses(seed=SEED, **changed):
        torch.manual_seed(seed)
        return perception_losses(model, batch, weights | changed)

    theirs = losses()
    compare("perception as published", found, theirs, gradients(model, theirs["loss"]))
    for what, theirs in [
        ("other dropped values", losses(seed=SEED + 1)),
        ("masking what is missing", losses(missing="masked")),
        ("losses of the last layer only", losses(aux=False)),
    ]:
        differs(what, found, theirs, gradients(model, theirs["loss"]))
    changes = trained(model, lambda: losses()["loss"], dict)
    far = furthest(found, before, changes)
    model.load_state_dict(before)
    other = furthest(found, before, trained(model, lambda: losses()["loss"], dict, decays_all=False))
    print(f"  after {STEPS} steps of AdamW: changes within {far:.1e} of the largest possible; without decay of vectors {other:.1e}")
    assert far < 1e-2 < 0.1 < other


@pytest.mark.parametrize("own_head", [True, False])
def test_instruction_tuning_as_published(step, own_head):
    """With adapters that drop, all tokens of the same weight, and an output layer that begins as the embedding table. All sequences have
    one question and the same length, so that both sides drop from tensors of the same shape."""
    torch.manual_seed(8)
    dropout, length, asked = 0.2, 30, 12
    base, projector = gemma(tied=False), Projector()
    shake(projector)
    packs = [{**pack, "turns": []} for pack in made_packs()]
    for number, pack in enumerate(packs):
        ids = torch.randint(1, LANGUAGE["vocab_size"], (length,)).tolist()
        pack["ids"], pack["visual_index"] = ids[: length - asked], (pack["visual_index"] * 3)[: length - asked]
        question = 2 + 3 * number
        pack["turns"] = [(ids[length - asked :][:question], ids[length - asked :][question:])]
    batch = {
        "image_tokens": torch.randn(len(packs), PATCHES, IMAGE_WIDTH),
        "object_embeddings": torch.randn(len(packs), STRUCTURE_COUNT, EMBEDDING),
    }
    if own_head:
        base.lm_head.weight.data.copy_(base.model.embed_tokens.weight.data)
    model = adapted(base, tied=False, dropout=dropout).train()
    whole = nn.ModuleDict({"model": model, "projector": projector})
    own = lambda tensors: ours(tensors, False, True)
    before = {name: tensor.clone() for name, tensor in own(whole.state_dict().items()).items()}
    given = {name: tensor for name, tensor in before.items() if not (own_head and name == "lm_head.weight")}
    models = {
        "apm": {"width": IMAGE_WIDTH, "embedding": EMBEDDING},
        "language": LANGUAGE | {"tie_word_embeddings": own_head},
        "lora": LORA | {"dropout": dropout},
    }
    settings = OPTIMISER | {"answer_weights": "published", "own_head": own_head}
    found = step("instruct", models, given, batch, packs, settings=settings)

    def loss(seed=SEED, balanced=False):
        torch.manual_seed(seed)
        features = projector(batch["image_tokens"], batch["object_embeddings"])
        ids = torch.tensor([pack["ids"] + pack["turns"][0][0] + pack["turns"][0][1] for pack in packs])
        index = torch.tensor([pack["visual_index"] + [-1] * asked for pack in packs])
        rows = torch.stack([features[number][at.clamp(min=0)] for number, at in enumerate(index)])
        hidden = torch.where((index >= 0)[..., None], rows, model.get_input_embeddings()(ids))
        logits = model(inputs_embeds=hidden, use_cache=False).logits
        total, counted = 0.0, 0.0
        for pack, row in zip(packs, logits, strict=True):
            answer = pack["turns"][0][1]
            weight = len(answer) ** -0.5 if balanced else 1.0
            total = total + weight * F.cross_entropy(row[-len(answer) - 1 : -1], torch.tensor(answer), reduction="sum")
            counted += weight * len(answer)
        return total / counted

    compare(f"instruction tuning as published, own head {own_head}", found, {"loss": loss()}, own(gradients(whole, loss()).items()))
    for what, changed in [("other dropped values", {"seed": SEED + 1}), ("balanced answers", {"balanced": True})]:
        differs(what, found, {"loss": loss(**changed)}, own(gradients(whole, loss(**changed)).items()))
    far = furthest(found, before, trained(whole, loss, own))
    print(f"  after {STEPS} steps of AdamW: changes within {far:.1e} of the largest possible")
    assert far < 1e-2
