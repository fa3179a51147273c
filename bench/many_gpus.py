"""What a training of the paper's models takes on several GPUs, by calculation: docs/scale.md shows what this prints.

Nothing here was measured. Utilisations are assumptions, and say so.
"""

from dataclasses import dataclass

# An H100 SXM: dense operations in bf16 a second, and bytes a second in each direction over NVLink and over its network card.
OPERATIONS, NVLINK, NETWORK = 989e12, 450e9, 400e9 / 8
# Assumed shares of these operations: convolutions of a ResNet are bound by memory, the decoder's matrices are large.
UTILISATION = {"apm": 0.20, "instruct": 0.40}


@dataclass
class Stage:
    """A stage: numbers of parameters, and operations (two for each product) and bytes of activations of one sample."""

    name: str
    frozen_bytes: float
    trained: float
    operations: float
    activations: float
    batch: int
    samples: int


def perception(side=1024, width=256, inner=1024, layers=4, structures=36):
    """ResNet-50, encoder and decoder. The backward pass takes twice the forward pass."""
    # 4.09e9 products for 224 x 224 pixels with three channels; the first convolution has one channel.
    scale = (side / 224) ** 2
    resnet = (4.09e9 - 2 / 3 * 118e6) * scale
    tokens = (side // 32) ** 2 + 1
    encoder = layers * tokens * (4 * width**2 + 2 * width * inner + 2 * tokens * width)
    decoder = layers * (2 * tokens * width**2 + structures * (8 * width**2 + 2 * width * inner + 2 * tokens * width))
    # 11.1e6 outputs of convolutions for 224 x 224 pixels, and those of the norms after them, in bf16.
    activations = 2 * 11.1e6 * scale * 2 + layers * tokens * (8 * width + 2 * inner) * 2
    return Stage("apm", 0.3e6 * 4, 31.5e6, 3 * 2 * (resnet + encoder + decoder), activations, 48, 237_938)


def language(tokens=2500, targets=150, hidden=2560, layers=34, heads=2048, kv=1024, inner=10240, rows=262_208, rank=16):
    """MedGemma-4b with LoRA, embeddings and an output layer of its own. The layers are frozen and computed twice (checkpointing), so that
    a step takes three forward passes of them and three of the output layer, which is trained."""
    matrices = [(hidden, heads), (hidden, kv), (hidden, kv), (heads, hidden), (hidden, inner), (hidden, inner), (inner, hidden)]
    frozen = layers * sum(a * b for a, b in matrices)
    adapters = layers * sum(rank * (a + b) for a, b in matrices)
    projectors = 256 * 512 + 512 * hidden + 16 * 512 + 512 * hidden
    trained = adapters + projectors + 2 * rows * hidden
    attention = layers * 2 * tokens**2 * heads / 2
    operations = 3 * 2 * ((frozen + adapters) * tokens + attention + rows * hidden * targets)
    # Inputs of all layers, one layer's inner values, and logits with their gradient.
    activations = layers * tokens * hidden * 2 + tokens * (2 * heads + 2 * kv + 3 * inner + 4 * hidden) * 2 + 2 * targets * rows * 4
    return Stage("instruct", frozen * 2, trained, operations, activations, 8, 100_000)


def row(stage, gpus, nodes, batch, sharded):
    """Memory of a GPU, communication and time of a step."""
    own = -(-batch // gpus)
    moments = 8 * stage.trained / (gpus if sharded else 1)
    memory = stage.frozen_bytes + 8 * stage.trained + moments + own * stage.activations
    compute = own * stage.operations / (OPERATIONS * UTILISATION[stage.name])
    volume = 2 * (gpus - 1) / gpus * 4 * stage.trained
    gather = (gpus - 1) / gpus * 4 * stage.trained if sharded else 0
    speed = NVLINK if nodes == 1 else NETWORK
    sums, exchange = volume / speed, gather / speed
    steps = stage.samples // batch
    # Sums run during two thirds of the step, the backward pass, at best; at worst after it.
    best, worst = max(compute, compute / 3 + sums) + exchange, compute + sums + exchange
    cells = [stage.name, f"{nodes} x {gpus // nodes}", batch, own, "yes" if sharded else "no", f"{memory / 1e9:.1f} GB"]
    cells += [f"{compute * 1e3:.0f} ms", f"{(volume + gather) / 1e9:.2f} GB", f"{sums * 1e3:.1f} ms", f"{exchange * 1e3:.1f} ms"]
    return [*cells, f"{steps * best / 60:.1f} to {steps * worst / 60:.1f} min"]


def main():
    stages = [perception(), language()]
    for stage in stages:
        print(f"{stage.name}: {stage.trained / 1e6:,.1f} M trained, {stage.operations / 1e12:,.2f} T operations and", end=" ")
        print(f"{stage.activations / 1e9:.2f} GB of activations a sample, {stage.samples:,} samples an epoch")
    head = ["stage", "machines x GPUs", "batch", "of a GPU", "sharded", "memory of a GPU", "compute a step", "sent by a GPU a step"]
    head += ["sums", "exchange", "epoch"]
    print("", "| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |", sep="\n")
    plans = [(0, 1, 1, 48, False), (0, 4, 1, 48, False), (0, 64, 8, 384, False), (1, 1, 1, 8, False), (1, 4, 1, 8, False)]
    plans += [(1, 4, 1, 8, True), (1, 64, 8, 64, False), (1, 64, 8, 64, True)]
    for at, gpus, nodes, batch, sharded in plans:
        print("| " + " | ".join(str(cell) for cell in row(stages[at], gpus, nodes, batch, sharded)) + " |")


if __name__ == "__main__":
    main()
