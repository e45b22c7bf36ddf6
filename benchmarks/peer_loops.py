"""Views and training loops of the peers, as the documentation of each one shows them.

Runs in the peers' environment: nothing of byol is imported here. A peer has `views(size)` (a
function of a Pillow image), `loop(network, size, shipped, given)`, `dataset(folder, size)`,
`unpack(batch)` to two views and labels, the `precision` that it ships with, and `notes`: what it
does otherwise than the paper, with the module and the pattern that prove it.

shipped False: projector and predictor of 4096 and 256 for all. given: views come from outside.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

WIDTH = {"resnet18": 512, "resnet50": 2048}
PILLOW_BLUR = "blurs with Pillow's stacked boxes, not with a Gaussian of 23 taps"
BILINEAR = "resizes bilinearly (the paper: bicubic)"


def backbone(network: str) -> Any:
    """torchvision's ResNet without its classifier."""
    module = getattr(torchvision.models, network)()
    module.fc = nn.Identity()
    return module


class Loop:
    """One iteration: forward, loss, backward, optimizer, moving average."""

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        optimizer: Any,
        update: Callable[[], object],
    ) -> None:
        self.module, self.loss, self.optimizer, self.update = module, loss, optimizer, update

    def to(self, device: torch.device) -> "Loop":
        self.module.to(device)
        return self

    def step(
        self, view1: Tensor, view2: Tensor, labels: Tensor, precision: AbstractContextManager[Any]
    ) -> None:
        with precision:
            loss = self.loss(view1, view2, labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.update()


def folder_of(path: str, transform: Any) -> Any:
    return torchvision.datasets.ImageFolder(path, transform)


class Lightly:
    """docs.lightly.ai/self-supervised-learning/examples/byol.html, the plain PyTorch example."""

    precision = "fp32"
    notes = (
        ("views", PILLOW_BLUR, "lightly.transforms.gaussian_blur", r"ImageFilter\.GaussianBlur"),
        (
            "views",
            BILINEAR,
            "lightly.transforms.byol_transform",
            r"Crop\(size=input_size, scale=[^=]*\)",
        ),
        (
            "views",
            "jitters as torchvision does: brightness multiplies, contrast is about the grey mean",
            "lightly.transforms.byol_transform",
            r"T\.ColorJitter",
        ),
    )

    def views(self, size: int) -> Callable[[Any], Any]:
        from lightly.transforms import BYOLTransform, BYOLView1Transform, BYOLView2Transform

        options = {"input_size": size} | ({"gaussian_blur": 0.0} if size <= 64 else {})
        both = BYOLTransform(BYOLView1Transform(**options), BYOLView2Transform(**options))
        return both  # type: ignore[no-any-return]

    def loop(self, network: str, size: int, shipped: bool, given: bool) -> Loop:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
        from lightly.models.utils import deactivate_requires_grad, update_momentum

        hidden = 1024 if shipped and network == "resnet18" else 4096
        encoder, head = backbone(network), BYOLProjectionHead(WIDTH[network], hidden, 256)
        predictor = BYOLPredictionHead(256, hidden, 256)
        averages = copy.deepcopy(encoder), copy.deepcopy(head)
        for module in averages:
            deactivate_requires_grad(module)
        criterion = NegativeCosineSimilarity()

        def loss(view1: Tensor, view2: Tensor, labels: Tensor) -> Tensor:
            p1 = predictor(head(encoder(view1).flatten(start_dim=1)))
            z1 = averages[1](averages[0](view1).flatten(start_dim=1)).detach()
            p2 = predictor(head(encoder(view2).flatten(start_dim=1)))
            z2 = averages[1](averages[0](view2).flatten(start_dim=1)).detach()
            return 0.5 * (criterion(p1, z2) + criterion(p2, z1))

        def update() -> None:
            update_momentum(encoder, averages[0], m=0.996)
            update_momentum(head, averages[1], m=0.996)

        module = nn.ModuleList([encoder, head, predictor, *averages])
        optimizer = torch.optim.SGD(module.parameters(), lr=0.06)
        return Loop(module, loss, optimizer, update)

    def dataset(self, folder: str, size: int) -> Any:
        return folder_of(folder, self.views(size))

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        (view1, view2), labels = batch
        return view1, view2, labels


class ByolPytorch:
    """github.com/lucidrains/byol-pytorch, README, section Usage."""

    precision = "fp32"
    notes = (
        (
            "views",
            "draws each augmentation once for a batch, not for an image",
            "byol_pytorch.byol_pytorch",
            r"if random\.random\(\) > self\.p:\s+return x",
        ),
        (
            "views",
            "makes both views alike: no solarize, a blur of 3 taps in 2 of 10 batches",
            "byol_pytorch.byol_pytorch",
            r"T\.GaussianBlur\(\(3, 3\), \(1\.0, 2\.0\)\),\s+p = 0\.2",
        ),
        (
            "step",
            "takes batch statistics over both views together",
            "byol_pytorch.byol_pytorch",
            r"images = torch\.cat\(\(image_one, image_two\)",
        ),
        (
            "step",
            "puts simplicial embeddings before the projector by default (as shipped only)",
            "byol_pytorch.byol_pytorch",
            r"use_simplicial_embeddings = True",
        ),
    )

    def _learner(self, network: str, size: int, **options: Any) -> Any:
        from byol_pytorch import BYOL

        return BYOL(backbone(network), image_size=size, hidden_layer="avgpool", **options)

    def batch_views(self, size: int) -> Callable[[Tensor], Any]:
        learner = self._learner("resnet18", size)
        return lambda images: (learner.augment1(images), learner.augment2(images))

    def views(self, size: int) -> Callable[[Any], Any]:
        both = self.batch_views(size)  # photographs differ in size: a batch is one of them
        tensor = torchvision.transforms.functional.to_tensor
        return lambda image: both(tensor(image)[None])

    def loop(self, network: str, size: int, shipped: bool, given: bool) -> Loop:
        options: dict[str, Any] = {} if shipped else {"use_simplicial_embeddings": False}
        if given:  # both views in one batch, in place of its own augmentation
            options["augment_fn"] = lambda x: x[: len(x) // 2]
            options["augment_fn2"] = lambda x: x[len(x) // 2 :]
        learner = self._learner(network, size, **options)

        def loss(view1: Tensor, view2: Tensor, labels: Tensor) -> Tensor:
            return learner(torch.cat((view1, view2)) if given else view1)  # type: ignore[no-any-return]

        optimizer = torch.optim.Adam(learner.parameters(), lr=3e-4)
        return Loop(learner, loss, optimizer, learner.update_moving_average)

    def dataset(self, folder: str, size: int) -> Any:
        return folder_of(folder, torchvision.transforms.ToTensor())

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        images, labels = batch
        return images, images, labels
