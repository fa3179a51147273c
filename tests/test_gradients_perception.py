"""One optimiser step of the perception module: losses and gradients equal those of PyTorch for the same parameters and batch.

The reference is independent of the trainer: torchvision's ResNet blocks and box losses, PyTorch's attention, transformers' DINOv3.
"""

import pytest
from gradients import compare, differs, gradients, one_thread, step  # noqa: F401 (fixtures)
from perception_reference import SIZES, TEXT, made_perception, perception_losses
from torch import nn
from transformers import DINOv3ViTConfig, DINOv3ViTModel


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
