"""One optimiser step of the language model and the projectors: losses and gradients equal those of PyTorch for the same parameters and
batch.

The reference is independent of the trainer: transformers' Gemma 3, peft's adapters, PyTorch's cross-entropy.
"""

import pytest
import torch
from gradients import STRUCTURE_COUNT, compare, differs, gradients, one_thread, shake, step  # noqa: F401 (fixtures)
from language_reference import EMBEDDING, IMAGE_WIDTH, LANGUAGE, LORA, PATCHES, Projector, adapted, gemma, language_loss, made_packs, ours
from torch import nn

STAGES = [("language", True), ("language", False), ("align", True), ("instruct", True), ("instruct", False), ("full", True)]


@pytest.mark.parametrize("stage,tied", STAGES)
def test_language(step, stage, tied):
    torch.manual_seed(6)
    base, projector, packs = gemma(tied), Projector(), made_packs()
    shake(projector)
    batch = {} if stage == "language" else {
        "image_tokens": torch.randn(len(packs), PATCHES, IMAGE_WIDTH),
        "object_embeddings": torch.randn(len(packs), STRUCTURE_COUNT, EMBEDDING),
    }
    model = adapted(base, tied) if stage == "instruct" else base
    if stage == "align":
        model.requires_grad_(False)
    whole = nn.ModuleDict({"model": model, "projector": projector})

    mine = lambda tensors: ours(tensors, tied, bool(batch))
    models = {
        "apm": {"width": IMAGE_WIDTH, "embedding": EMBEDDING},
        "language": LANGUAGE | {"tie_word_embeddings": tied},
        "lora": LORA,
    }
    found = step(stage, models, mine(whole.state_dict().items()), batch, packs)
    loss = language_loss(model, projector, batch, packs)
    compare(f"{stage}, tied {tied}", found, {"loss": loss}, mine(gradients(whole, loss).items()))
    loss = language_loss(model, projector, batch, packs, by_tokens=True)
    differs("weighing by tokens", found, {"loss": loss}, mine(gradients(whole, loss).items()))
    if stage == "language":
        wider = gemma(tied, LANGUAGE["sliding_window"] + 1)
        wider.load_state_dict(base.state_dict())
        whole = nn.ModuleDict({"model": wider, "projector": projector})
        loss = language_loss(wider, projector, batch, packs)
        differs("a window wider by one", found, {"loss": loss}, mine(gradients(whole, loss).items()))
