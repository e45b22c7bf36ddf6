"""Views and training loops of the peers that are built on Lightning, without its Trainer.

As in peer_loops.py, which says what each method is.
"""

import sys
import types
from collections.abc import Callable
from typing import Any

from peer_loops import PILLOW_BLUR, Loop, backbone, folder_of
from torch import Tensor


class StablePretraining:
    """github.com/galilai-group/stable-pretraining, benchmarks/cifar10/byol-resnet18.py and
    benchmarks/imagenet100/byol-resnet50.py, without its Trainer, probes and logging."""

    precision = "bf16"  # its scripts ask for 16-mixed, for which Lightning takes bf16 on a CPU
    notes = (
        ("views", PILLOW_BLUR, "stable_pretraining.data.transforms", r"ImageFilter\.GaussianBlur"),
        (
            "step",
            "averages the target's norm statistics too (the paper's target has its own)",
            "stable_pretraining.backbone.utils",
            r"self\.teacher\.buffers\(\), self\.student\.buffers\(\)",
        ),
        (
            "views",
            "jitters as torchvision does",
            "stable_pretraining.data.transforms",
            r"class ColorJitter\(Transform, v2\.ColorJitter\)",
        ),
    )

    def views(self, size: int) -> Callable[[Any], Any]:
        both = self._transform(size)
        return lambda image: both({"image": image})

    def _transform(self, size: int) -> Any:
        from stable_pretraining.data import transforms
        from stable_pretraining.data.dataset_stats import CIFAR10, ImageNet

        def view(smallest: float, *more: Any) -> Any:
            return transforms.Compose(
                transforms.RGB(),
                transforms.RandomResizedCrop((size, size), scale=(smallest, 1.0)),
                transforms.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
                transforms.RandomGrayscale(p=0.2),
                *more,
                transforms.RandomHorizontalFlip(p=0.5),
                transforms.ToImage(**(CIFAR10 if size <= 64 else ImageNet)),
            )

        if size <= 64:
            return transforms.MultiViewTransform([view(0.2), view(0.08)])
        blur, solarize = transforms.PILGaussianBlur, transforms.RandomSolarize
        second = view(0.08, blur(p=0.1), solarize(threshold=0.5, p=0.2))
        return transforms.MultiViewTransform([view(0.08, blur(p=1.0)), second])

    def loop(self, network: str, size: int, shipped: bool, given: bool) -> Loop:
        from stable_pretraining.methods.byol import BYOL
        from stable_pretraining.optim import LARS

        heads = (2048, 128) if shipped and network == "resnet18" else (4096, 256)
        learner = BYOL(backbone(network), projector_dims=heads, predictor_dims=heads)
        learner.train()

        def update() -> None:  # what its TeacherStudentCallback calls
            learner.backbone.update_teacher()
            learner.projector.update_teacher()

        optimizer = LARS(learner.parameters(), lr=0.5, weight_decay=1e-6)
        return Loop(learner, lambda a, b, labels: learner(a, b).loss, optimizer, update)

    def dataset(self, folder: str, size: int) -> Any:
        from stable_pretraining.data import FromTorchDataset

        names = ["image", "label"]
        return FromTorchDataset(folder_of(folder, None), names, transform=self._transform(size))

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        view1, view2 = batch["views"]
        return view1["image"], view2["image"], view1["label"]


class SoloLearn:
    """github.com/vturrisi/solo-learn, bash_files/pretrain/cifar/byol.sh and imagenet/byol.sh, with
    the head sizes that its command line has by default, without its Trainer and logging."""

    precision = "fp32"  # its scripts ask for 16 bits, which its Lightning refuses on a CPU
    notes = (
        ("views", PILLOW_BLUR, "solo.utils.pretrain_dataloader", r"ImageFilter\.GaussianBlur"),
        (
            "views",
            "jitters as torchvision does",
            "solo.utils.pretrain_dataloader",
            r"transforms\.ColorJitter",
        ),
        (
            "step",
            "trains a linear classifier in the same step",
            "solo.methods.byol",
            r"return neg_cos_sim \+ class_loss",
        ),
        (
            "step",
            "averages its target parameter by parameter, into new memory",
            "solo.utils.momentum",
            r"mp\.data = self\.cur_tau \* mp\.data \+",
        ),
    )

    def __init__(self) -> None:
        """Its dependency lightning-bolts cannot be imported with a Lightning of today; the class
        of it that is named, a schedule, is not used here."""
        for name in ("pl_bolts", "pl_bolts.optimizers", "pl_bolts.optimizers.lr_scheduler"):
            sys.modules[name] = types.ModuleType(name)
        schedule = sys.modules["pl_bolts.optimizers.lr_scheduler"]
        schedule.LinearWarmupCosineAnnealingLR = object  # type: ignore[attr-defined]

    def views(self, size: int) -> Callable[[Any], Any]:
        from solo.utils import pretrain_dataloader as solo

        kind = solo.CifarTransform if size <= 64 else solo.ImagenetTransform
        blur = (0.0, 0.0) if size <= 64 else (1.0, 0.1)
        views = [
            kind(0.4, 0.4, 0.2, 0.1, gaussian_prob=b, solarization_prob=s, crop_size=size)
            for b, s in zip(blur, (0.0, 0.2), strict=True)
        ]
        return solo.prepare_n_crop_transform(views, [1, 1])  # type: ignore[no-any-return]

    def loop(self, network: str, size: int, shipped: bool, given: bool) -> Loop:
        from solo.methods.byol import BYOL

        hidden, predictor = (2048, 512) if shipped else (4096, 4096)
        method = BYOL(
            encoder=network, num_classes=10, backbone_args={}, max_epochs=1000, batch_size=256,
            optimizer="sgd", lars=True, lr=1.0, weight_decay=1e-5, classifier_lr=0.1,
            exclude_bias_n_norm=True, accumulate_grad_batches=1, scheduler="none", min_lr=0.0,
            extra_optimizer_args={"momentum": 0.9}, warmup_start_lr=0.003, warmup_epochs=10,
            num_large_crops=2, num_small_crops=0, eta_lars=0.02, grad_clip_lars=True,
            base_tau_momentum=0.99, final_tau_momentum=1.0, momentum_classifier=False,
            proj_output_dim=256, proj_hidden_dim=hidden, pred_hidden_dim=predictor,
        )  # fmt: skip
        method.log_dict = lambda *_, **__: None  # there is no Trainer to log to

        def loss(view1: Tensor, view2: Tensor, labels: Tensor) -> Tensor:
            return method.training_step([None, [view1, view2], labels], 0)  # type: ignore[no-any-return]

        def update() -> None:  # what its on_train_batch_end does
            for pair in method.momentum_pairs:
                method.momentum_updater.update(*pair)

        return Loop(method, loss, method.configure_optimizers(), update)

    def dataset(self, folder: str, size: int) -> Any:
        return folder_of(folder, self.views(size))

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        (view1, view2), labels = batch
        return view1, view2, labels
