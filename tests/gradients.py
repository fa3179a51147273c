"""The trainer's losses and gradients of one optimiser step, and how they are compared with PyTorch's.

`step` is an example of the trainer's crate, which calls the same functions as the training loops.
"""

import json
import os
import subprocess

import pytest
import torch
from conftest import needed
from safetensors.torch import load_file, save_file
from torch import nn

LOSS, GRADIENT = 1e-5, 1e-4
STRUCTURE_COUNT, LABEL_COUNT = 36, 14


@pytest.fixture(scope="module")
def one_thread():
    """Sets one thread, because models of this size are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def step(root, tmp_path_factory, one_thread):
    """Runs the trainer's example `step`. Returns losses and gradients by name."""
    program = needed(root / "target/release/examples/step", "trainer")

    def step(stage: str, models: dict, parameters: dict, batch: dict, packs=(), losses=None, settings=None) -> dict:
        folder = tmp_path_factory.mktemp(stage)
        tables = lambda tables: "\n".join(f"[{name}]\n{toml(table)}" for name, table in tables.items())
        (folder / "models.toml").write_text(tables(models))
        (folder / "losses.toml").write_text(toml(losses or {}))
        (folder / "settings.toml").write_text(toml(settings or {}))
        (folder / "packs.json").write_text(json.dumps(packs))
        whole = lambda tensors: {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
        save_file(whole({name: tensor.float() for name, tensor in parameters.items()}), folder / "params.safetensors")
        save_file(whole(batch), folder / "batch.safetensors")
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([program, stage, folder], env=variables, capture_output=True, text=True, check=False)
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
