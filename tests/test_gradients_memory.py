"""What lets a large model train in little memory gives the same gradients: accumulation over batches, layers that are computed again, and
products in bf16, which are compared with PyTorch's autocast."""

import pytest
import torch
from gradients import STRUCTURE_COUNT, compare, differs, gradients, one_thread, shake, step  # noqa: F401 (fixtures)
from language_reference import EMBEDDING, IMAGE_WIDTH, LANGUAGE, LORA, PATCHES, Projector, adapted, gemma, language_loss, made_packs, ours
from perception_reference import SIZES, TEXT, Layer, made_perception, perception_losses
from torch import nn

WEIGHTS = {"l1": 5.0, "giou": 3.0, "labels": 2.0, "contrastive": 1.0, "temperature": 0.01, "clip": False}
MODELS = {"apm": SIZES | {"train_batch_norm": False}, "text": TEXT}
SEED = 7


@pytest.fixture(scope="module")
def language():
    """Model, projector, batch and packs of instruction tuning, and the trainer's configuration."""
    torch.manual_seed(6)
    projector, packs = Projector(), made_packs()
    model = adapted(gemma(tied=False), tied=False)
    shake(projector)
    batch = {
        "image_tokens": torch.randn(len(packs), PATCHES, IMAGE_WIDTH),
        "object_embeddings": torch.randn(len(packs), STRUCTURE_COUNT, EMBEDDING),
    }
    models = {
        "apm": {"width": IMAGE_WIDTH, "embedding": EMBEDDING},
        "language": LANGUAGE | {"tie_word_embeddings": False},
        "lora": LORA,
    }
    return nn.ModuleDict({"model": model, "projector": projector}), batch, packs, models


def mine(tensors) -> dict:
    return ours(tensors, False, True)


def parts(found: dict) -> tuple[dict, dict]:
    named = lambda prefix: {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    return {name: value for name, value in found.items() if name.startswith("loss")}, named("gradient.")


def same(what: str, found: dict, expected: dict):
    """Checks that losses and gradients are equal up to rounding."""
    (losses, own), (others, theirs) = parts(found), parts(expected)
    assert own.keys() == theirs.keys() and losses.keys() == others.keys()
    loss = max(abs(losses[name].item() - value.item()) / abs(value.item()) for name, value in others.items())
    norm = lambda tensors: torch.stack([tensor.double().norm() for tensor in tensors]).norm().item()
    furthest = norm(own[name] - value for name, value in theirs.items()) / norm(theirs.values())
    print(f"{what}: losses within {loss:.1e}, gradients within {furthest:.1e} of their norm")
    assert loss < 1e-6 and furthest < 2e-6


def test_batches_of_perception_add_up(step):
    """The contrastive loss compares all images of a step, whatever the batches."""
    model, batch = made_perception(False, True)
    run = lambda batch, size=3: step("apm", MODELS, model.state_dict(), batch, losses=WEIGHTS, settings={"batch": size})
    whole = run(batch)
    for size in [1, 2]:
        same(f"perception in batches of {size}", run(batch, size), whole)
    per_image = {"image", "boxes", "present", "labels", "sentences"}
    single = [run({name: value[i : i + 1] if name in per_image else value for name, value in batch.items()}) for i in range(3)]
    mean = {name: sum(parts(one)[1][name] for one in single) / 3 for name in parts(whole)[1]}
    differs("a mean of means", whole, {"loss": whole["loss"]}, mean)


def test_batches_of_packs_add_up(step, language):
    whole, batch, packs, models = language
    parameters = mine(whole.state_dict().items())
    run = lambda packs, batch, size=3: step("instruct", models, parameters, batch, packs, settings={"batch": size})
    expected = run(packs, batch)
    for size in [1, 2]:
        same(f"packs in batches of {size}", run(packs, batch, size), expected)
    single = [run([pack], {name: value[i : i + 1] for name, value in batch.items()}) for i, pack in enumerate(packs)]
    mean = {name: sum(parts(one)[1][name] for one in single) / 3 for name in parts(expected)[1]}
    differs("a mean of means", expected, {"loss": expected["loss"]}, mean)


def test_layers_of_perception_are_computed_again(step, monkeypatch):
    model, batch = made_perception(False, True)
    run = lambda models, **settings: step("apm", models, model.state_dict(), batch, losses=WEIGHTS, settings=settings | {"seed": SEED})
    same("perception with layers computed again", run(MODELS, checkpointing=True), run(MODELS))
    same("the same in batches", run(MODELS, checkpointing=True, batch=2), run(MODELS))
    # With dropout, the second run must drop what the first one dropped.
    monkeypatch.setattr(Layer, "reseeded", True)
    dropout = 0.2
    model, batch = made_perception(False, True, dropout=dropout, seed=SEED)
    found = run(MODELS | {"apm": MODELS["apm"] | {"dropout": dropout}}, checkpointing=True)
    model.double()
    torch.manual_seed(SEED)
    losses = perception_losses(model, batch, WEIGHTS)
    compare("perception with dropout and layers computed again", found, losses, gradients(model, losses["loss"]))


def test_layers_of_the_language_model_are_computed_again(step, language):
    whole, batch, packs, models = language
    run = lambda **settings: step("instruct", models, mine(whole.state_dict().items()), batch, packs, settings=settings)
    same("packs with layers computed again", run(checkpointing=True), run())
    same("the same in batches", run(checkpointing=True, batch=1), run())


def test_layers_that_are_computed_again_take_less_memory(step):
    """At a reduced width: 16 layers of 96, 600 tokens."""
    torch.manual_seed(6)
    sizes = {"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 16}
    shapes = LANGUAGE | sizes | {"tie_word_embeddings": True, "max_position_embeddings": 1024}
    parameters = {"model.embed_tokens.weight": [131, 96], "model.norm.weight": [96]}
    for layer in range(16):
        name = f"model.layers.{layer}."
        for part, shape in {"q": [64, 96], "k": [32, 96], "v": [32, 96], "o": [96, 64]}.items():
            parameters[f"{name}self_attn.{part}_proj.weight"] = shape
        for part, shape in {"gate": [384, 96], "up": [384, 96], "down": [96, 384]}.items():
            parameters[f"{name}mlp.{part}_proj.weight"] = shape
        for part in ["input", "post_attention", "pre_feedforward", "post_feedforward"]:
            parameters[f"{name}{part}_layernorm.weight"] = [96]
        parameters |= {f"{name}self_attn.{part}_norm.weight": [16] for part in "qk"}
    parameters = {name: torch.randn(shape) * 0.05 for name, shape in parameters.items()}
    draw = lambda count: torch.randint(131, (count,)).tolist()
    packs = [{"ids": draw(600), "visual_index": [-1] * 600, "turns": [(draw(4), draw(4))]} for _ in range(4)]
    run = lambda **settings: step("language", {"language": shapes}, parameters, {}, packs, settings=settings)["peak"].item()
    few = step("language", {"language": shapes}, parameters, {}, [{**packs[0], "ids": draw(8), "visual_index": [-1] * 8}])["peak"].item()
    kept, again = run() - few, run(checkpointing=True) - few
    print(f"memory of a step beyond that of a short one: {kept:.0f} MiB with all values kept, {again:.0f} MiB with layers computed again")
    assert again < kept / 3


def error(found: dict, exact: dict) -> float:
    """Norm of the difference of all gradients, relative to their norm; each tensor counts the same."""
    clear = {name: value.double() for name, value in exact.items() if value.norm() > 1e-4}
    ratios = [(found[name].double() - value).norm() / value.norm() for name, value in clear.items()]
    return torch.stack(ratios).mean().item()


def test_products_of_perception_in_bf16_are_as_near_as_those_of_autocast(step):
    model, batch = made_perception(True, True)
    models = {"apm": SIZES | {"train_batch_norm": True}, "text": TEXT}
    parameters = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    found = step("apm", models, parameters, batch, losses=WEIGHTS, settings={"precision": "bf16"})
    with torch.autocast("cpu", torch.bfloat16):
        losses = perception_losses(model, batch, WEIGHTS)
    rounded = gradients(model, losses["loss"])
    model.double()
    exact = perception_losses(model, batch, WEIGHTS)
    exact = gradients(model, exact["loss"])
    own, theirs = error(parts(found)[1], exact), error(rounded, exact)
    print(f"perception in bf16: gradients deviate by {own:.1e}, those of PyTorch's autocast by {theirs:.1e}")
    assert 1e-4 < own < 1.25 * theirs


def test_products_of_the_language_model_in_bf16_are_as_near_as_those_of_autocast(step, language):
    whole, batch, packs, models = language
    found = step("instruct", models, mine(whole.state_dict().items()), batch, packs, settings={"precision": "bf16"})
    loss = lambda: language_loss(whole["model"], whole["projector"], batch, packs)
    exact = mine(gradients(whole, loss()).items())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = loss()
    rounded = mine(gradients(whole, rounded).items())
    own, theirs = error(parts(found)[1], exact), error(rounded, exact)
    print(f"packs in bf16: gradients deviate by {own:.1e}, those of PyTorch's autocast by {theirs:.1e}")
    assert 1e-4 < own < 1.25 * theirs
