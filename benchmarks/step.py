"""One training step beside its floor, the bare convolutions and matrix products of the same step.

    python -m benchmarks.step [--model resnet50 --size 224 --batch 16 --stem large] [--profile]

Without --model the two standard cases are timed. The step is the loop's, from two views on: both
networks on both views, loss, backward, finite check, LARS, moving average, label monitor. The floor
has the same shapes, type and memory format and nothing between them: forward and backward of the
online network (no gradient of the images), forward of the target.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.timing import Timing, here, publish, race
from byol.build import build_learner
from byol.config import Config
from byol.engine.device import pick_device, pick_precision
from byol.engine.gradients import over_processes
from byol.engine.memory import keep_freed
from byol.engine.optimizer import build_optimizer
from byol.engine.processes import ALONE
from byol.engine.step import Step
from byol.learner import Byol
from byol.monitor import Held, Monitor
from byol.options import with_options

CASES = (("resnet18", 32, 256, "large"), ("resnet50", 224, 16, "large"))
CLASSES = 100  # of the label monitor


class Product(NamedTuple):
    """A convolution or matrix product of one forward, by what decides its cost."""

    layer: nn.Conv2d | nn.Linear
    shape: tuple[int, ...]  # of its input
    trained: bool  # whether its backward is run too
    first: bool  # whether its input is the images, which need no gradient


def configuration(
    model: str, size: int, batch: int, stem: str, precision: str, checkpointing: bool = False
) -> Config:
    """The paper's heads on `model`, trained by LARS."""
    values = {
        "model": model, "image_size": size, "batch_size": batch, "stem": stem, "channels": 3,
        "mean": (0.5,) * 3, "std": (0.25,) * 3, "precision": precision, "optimizer": "lars",
        "hidden_size": 4096, "projection_size": 256, "checkpointing": checkpointing,
    }  # fmt: skip
    return with_options(Config(), values)


def products(learner: Byol, view: Tensor) -> list[Product]:
    """Those of one view's way through both networks (norm averages move)."""
    found: list[Product] = []

    def note(layer: Any, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        shape, trained = tuple(inputs[0].shape), layer.weight.requires_grad
        found.append(Product(layer, shape, trained, shape == tuple(view.shape)))

    kinds = (nn.Conv2d, nn.Linear)
    hooks = [m.register_forward_hook(note) for m in learner.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        learner.predictor(learner.projector(learner.encoder(view)))
        learner.target_projector(learner.target_encoder(view))
    for hook in hooks:
        hook.remove()
    return found


def bare(product: Product, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    """The product alone, and its gradients where it is trained."""
    layer, needs = product.layer, [not product.first, True, False]
    x = torch.randn(product.shape, dtype=dtype, device=device)  # (B, C, H, W) or (B, D)
    weight = layer.weight.detach().to(dtype)
    if isinstance(layer, nn.Linear):
        g = torch.randn(len(x), layer.out_features, dtype=dtype, device=device)

        def product_of_matrices() -> None:
            x @ weight.T
            if product.trained:
                g.T @ x, g @ weight

        return product_of_matrices
    x = x.contiguous(memory_format=torch.channels_last)
    stride, padding, dilation = list(layer.stride), list(layer.padding), list(layer.dilation)
    how: Any = (stride, padding, dilation, False, [0, 0], layer.groups)
    g = torch.randn_like(torch.convolution(x, weight, None, *how))

    def convolution() -> None:
        torch.convolution(x, weight, None, *how)
        if product.trained:
            torch.ops.aten.convolution_backward(g, x, weight, None, *how, needs)

    return convolution


def floor(found: list[Product], precision: str, device: torch.device) -> Callable[[], None]:
    """All of them, for both views; equal ones share their tensors."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    kinds: dict[Any, Callable[[], object]] = {}
    works = []
    for product in found:
        layer = product.layer
        key = (layer.weight.shape, getattr(layer, "stride", 1), *product[1:])
        if key not in kinds:
            kinds[key] = bare(product, dtype, device)
        works.append(kinds[key])

    def run() -> None:
        for work in works + works:
            work()

    return run


def our_step(config: Config, learner: Byol, device: torch.device) -> Step:
    """What the loop does at every step, ready for two views."""
    held = Held(torch.empty(0, 3, 8, 8), torch.empty(0, dtype=torch.long))
    features = int(learner.encoder.num_features)  # type: ignore[arg-type]
    monitor = Monitor(held, held, CLASSES, features, device)
    network = over_processes(config, learner, device, ALONE)
    return Step(config, learner, network, build_optimizer(config, learner), monitor, 1000, 10)


def prepare(
    config: Config, device: torch.device, with_floor: bool = True
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A step of this configuration and its floor."""
    size, batch = config.data.image_size, config.optim.batch_size
    learner = build_learner(config).to(device).to(memory_format=torch.channels_last)
    view1, view2 = torch.rand(2, batch, 3, size, size, device=device).unbind()
    views = [v.contiguous(memory_format=torch.channels_last) for v in (view1, view2)]
    labels = torch.arange(batch, device=device) % CLASSES
    found = products(learner, view1) if with_floor else []
    bare_products = floor(found, config.train.precision, device)
    training = our_step(config, learner, device)

    def step() -> None:
        found = training.gradients([(views[0], views[1], labels)])
        _, tau = training.rates(100)
        if ALONE.any([found.is_bad])[0]:
            raise RuntimeError("the step is not finite")
        training.update(found, tau)

    return step, bare_products


def profile(step: Callable[[], None]) -> None:
    """The ten operations that take most of a step."""
    from torch.profiler import profile as record

    step()
    with record() as recorded:
        step()
    print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=10))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--stem", default="large")
    parser.add_argument("--precisions", nargs="+", help="fp32, and bf16 where the device has it")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    device = pick_device(asked.device)
    if device.type == "cpu":
        keep_freed()
    has_bf16 = pick_precision(device) == "bf16"
    precisions = asked.precisions or ["fp32", *["bf16"] * has_bf16]
    one = (asked.model, asked.size, asked.batch, asked.stem)
    timings: dict[str, Timing] = {}
    notes: list[str] = []
    ratios: dict[str, float] = {}
    for case in (one,) if asked.model else CASES:
        for precision in precisions:
            model, size, batch, stem = case
            name = f"{model} {size}px B{batch} {pick_precision(device, precision)}"
            config = configuration(model, size, batch, stem, precision, asked.checkpointing)
            step, bare_products = prepare(config, device)
            if asked.profile:
                print(name)
                profile(step)
                continue
            found = race({name: here(step), f"{name} floor": here(bare_products)}, asked.rounds)
            timings |= found
            ratios[name] = found[name].cpu[1] / found[f"{name} floor"].cpu[1]
            notes.append(f"{name}: {ratios[name]:.3f} times its floor")
            del step, bare_products
    if timings:
        publish(
            "step",
            "A training step and its bare products",
            timings,
            per="step",
            base=list(timings)[1],
            command=" ".join(["python -m benchmarks.step", *sys.argv[1:]]),
            notes=notes,
            more={"ratio_to_floor": ratios},
        )


if __name__ == "__main__":
    main()
