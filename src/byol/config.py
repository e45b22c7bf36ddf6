"""The configuration of a run: typed, frozen, complete. The saved config.yaml is the whole of it.

Field names are unique over all groups, so each is also a flag of the command line and a keyword
of `byol.pretrain`; a view's fields carry the prefix `view1_` or `view2_` there. `help` is the
flag's sentence, `common` puts it on the first page of --help.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from byol.viewspec import T_PRIME, T, ViewSpec

Optimizer = Literal["lars", "sgd", "adamw"]
Norm = Literal["batch", "group", "group-ws", "layer", "none"]


def option(default: Any, help: str, common: bool = False) -> Any:
    """A dataclass field that is also a flag: its default and its sentence."""
    return field(default=default, metadata={"help": help, "common": common})


@dataclass(frozen=True)
class DataConfig:
    """What the images are. The measured fields are filled in when a run begins."""

    eval_data: str | None = option(None, "labelled images to monitor and evaluate on", True)
    split: str | None = option(None, "which split of the data to train on (train)")
    hold_out: bool = option(
        False, "keep the monitored tenth away from pretraining too, where data has no test split"
    )
    image_size: int = option(224, "side of a view in pixels", True)
    crop_rule: Literal["torchvision", "official"] = option(
        "torchvision", "random crops: ten attempts, or one attempt cut to the image (official)"
    )
    antialias: bool = option(True, "antialias when shrinking (the official code does not)")
    blur_taps: Literal["exact", "3-sigma"] = option(
        "exact", "all taps of the blur, or for speed those within 3 sigma (half a level off)"
    )
    jpeg_scale: Literal["full", "reduced"] = option(
        "full",
        "read JPEGs whole, or for speed at the least of 1, 1/2, 1/4 and 1/8 of their size that "
        "leaves the shorter side twice image_size pixels",
    )
    channels: int | None = option(None, "channels of an image (measured)")
    value_range: tuple[float, float] | None = option(
        None, "pixel values that become 0 and 1 (0 255 for 8 bits, else measured)"
    )
    mean: tuple[float, ...] | None = option(None, "channel means in [0, 1] (ImageNet's for RGB)")
    std: tuple[float, ...] | None = option(None, "channel deviations (ImageNet's for RGB)")
    bad_share: float = option(0.1, "share of undecodable files above which the run ends")
    workers: int | None = option(None, "processes that read files (cores - 1 at most 8)", True)


@dataclass(frozen=True)
class NetworkConfig:
    """Encoder, projector and predictor (paper section 3.3)."""

    model: str = option("resnet50", "encoder: convnet, resnet18..200, resnet50-2x, or timm's", True)
    stem: Literal["large", "small"] = option(
        "large", "ResNet stem: 7x7 stride 2 and pool, or 3x3 stride 1 for small images"
    )
    reference: bool = option(
        False, "official conventions: SAME padding, initialisation, norm averages, no autocast"
    )
    norm: Norm = option(
        "batch",
        "norm layers: batch, group, group-ws (and standardised weights), layer, or none (affine "
        "layers set once from the first batch)",
    )
    projector_norm: Norm | None = option(
        None, "norm layers of the projector (as the encoder's; layer norm where those are group)"
    )
    predictor_norm: Norm | None = option(
        None, "norm layers of the predictor (as the encoder's; layer norm where those are group)"
    )
    norm_images: int | None = option(
        None, "images over which batch norm takes its statistics (all that pass at once)"
    )
    norm_over: Literal["all", "process"] = option(
        "all", "whose images pass at once for batch norm: all processes', or each one's own"
    )
    zero_gamma: Literal["false", "true", "identity"] = option(
        "false",
        "start residual branches at 0 (true: released code) instead of 1 (the paper's results), or "
        "those alone whose shortcut is the identity (one of stride 2 sees one pixel in four)",
    )
    zero_unseen: bool = option(
        False, "start weights at 0 that no pixel reaches as images are small (LARS counts them)"
    )
    hidden_size: int = option(4096, "hidden units of projector and predictor")
    projection_size: int = option(256, "size of projections and predictions")
    projector_depth: int = option(2, "linear layers of the projector")
    projector_output_norm: bool = option(
        False, "a norm layer without scale and offset at the projector's output"
    )
    predictor: Literal["mlp", "closed-form"] = option(
        "mlp", "predictor: trained layers, or the least-squares matrix of each batch"
    )
    predictor_depth: int = option(2, "linear layers of the predictor (0: none)")
    predictor_hidden_size: int | None = option(
        None, "hidden units of the predictor (those of the projector)"
    )
    ridge: float = option(
        1e-6, "ridge of the closed-form predictor, as a share of the mean square projection"
    )
    independent_target: bool = option(
        True, "initialise the target by itself (official) instead of copying the online network"
    )


@dataclass(frozen=True)
class OptimConfig:
    """How long, how fast (paper section 3.3)."""

    epochs: float = option(100, "passes over the images", True)
    batch_size: int = option(256, "images per optimizer step, over all devices", True)
    accumulation: int = option(1, "pieces in which a batch is computed when memory is short")
    optimizer: Optimizer = option("lars", "lars, sgd or adamw")
    base_lr: float = option(0.3, "learning rate at batch size 256 (chosen by rule)", True)
    warmup_epochs: float = option(10, "passes over which the learning rate rises")
    weight_decay: float = option(1e-6, "weight decay, none on biases and norms")
    momentum: float = option(0.9, "momentum of LARS and SGD")
    trust_coefficient: float = option(1e-3, "LARS: share of a weight's norm that a step may move")
    tau_base: float = option(0.99, "decay of the target's moving average at step 0")
    projector_lr: float = option(1, "multiplies the projector's learning rate")
    predictor_lr: float = option(1, "multiplies the predictor's learning rate")
    predictor_schedule: Literal["cosine", "constant"] = option(
        "cosine", "learning rate of the predictor: as the others, or always their peak"
    )


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is trained towards what (paper section 5 and relatives): BYOL by default."""

    target: Literal["average", "online"] = option(
        "average", "whose projection is predicted: the moving average's or the online network's own"
    )
    stop_gradient: bool = option(True, "no gradient through the target (false: online target)")
    tau_schedule: Literal["cosine", "constant"] = option(
        "cosine", "tau rises from tau_base to 1, or stays"
    )
    copy_every: int = option(0, "make the target a copy every so many steps, in place of tau")
    beta: float = option(0, "weight of the negatives: InfoNCE(alpha, beta)")
    alpha: float = option(0.1, "temperature of the negatives")
    loss_normalisation: Literal["l2", "layer", "batch", "none"] = option(
        "l2", "how predictions and targets are normalised in the loss"
    )
    directions: Literal["both", "one"] = option("both", "both views predict, or the first alone")
    compare: Literal["other", "same"] = option("other", "the view whose target a prediction meets")
    teacher: float = option(1, "weight of the distance to the target (below 0: away from it)")
    align: float = option(0, "weight of the distance between both views' predictions")


@dataclass(frozen=True)
class TrainConfig:
    """The machine and what is written when."""

    seed: int = option(0, "seed of weights, order, crops and views", True)
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps", True)
    precision: Literal["auto", "bf16", "fp32"] = option(
        "auto", "bf16 autocast where the hardware has it, or fp32", True
    )
    compile: bool = option(False, "torch.compile the encoders, and on a GPU the views")
    cuda_graph: bool | None = option(
        None, "launch a step as one CUDA graph (on one GPU with images of up to 64 pixels)"
    )
    checkpointing: bool = option(
        False, "compute each block's activations again for the backward pass: less memory"
    )
    compress_gradients: bool = option(False, "several processes exchange gradients in bf16")
    shard_optimizer: bool = option(False, "several processes share out the optimizer's state")
    deterministic: bool = option(False, "bit-identical repeats on CUDA, slower")
    evaluations: int = option(10, "times that the run is measured on its way")
    final_linear: bool = option(True, "train linear probes at the end")
    knn_k: int = option(20, "neighbours that vote")
    knn_temperature: float = option(0.07, "a neighbour's vote is exp(cosine / temperature)")
    log_every: int = option(10, "steps between lines of metrics.jsonl")
    save_seconds: float = option(120, "seconds between checkpoints")
    stop_on_collapse: bool = option(False, "end the run when the verdict is collapsed")


@dataclass(frozen=True)
class Config:
    """A complete run."""

    recipe: str = option("small-32", "starting point (see byol recipes)", True)
    view1: ViewSpec = T
    view2: ViewSpec = T_PRIME
    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()

    def steps(self, images: int) -> tuple[int, int]:
        """Total and warm-up steps: floor(epochs images / batch size), as in the official code."""
        per_epoch = images / self.optim.batch_size
        total = int(self.optim.epochs * per_epoch)
        return total, min(int(self.optim.warmup_epochs * per_epoch), total - 1)


GROUPS: dict[str, type] = {
    "optim": OptimConfig,
    "network": NetworkConfig,
    "objective": ObjectiveConfig,
    "data": DataConfig,
    "train": TrainConfig,
    "view1": ViewSpec,
    "view2": ViewSpec,
}
# What a resumed run may change, as it changes no weight.
FREE = (
    "data.workers",
    "train.evaluations",
    "train.final_linear",
    "train.knn_k",
    "train.knn_temperature",
    "train.log_every",
    "train.save_seconds",
    "train.stop_on_collapse",
    "train.shard_optimizer",
    "train.cuda_graph",
)


def head_norms(network: NetworkConfig) -> tuple[Norm, Norm]:
    """Norms of projector and predictor: as asked, else the encoder's, with layer for group norm.

    Groups of a vector's features have no meaning of their own; standardised weights keep them, as
    published.
    """
    default: Norm = "layer" if network.norm == "group" else network.norm
    return network.projector_norm or default, network.predictor_norm or default
