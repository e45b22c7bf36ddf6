"""A picture of images with the true boxes above and the found ones below."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from torch import Tensor

from byol.engine.files import atomic_write
from byol.tasks.precision import Boxes

SHOWN = 4  # images
LEAST_SCORE = 0.5  # of a found box that is drawn


def draw_boxes(
    images: Sequence[Tensor],
    true: Sequence[Boxes],
    found: Sequence[Boxes],
    classes: Sequence[str],
    path: Path,
) -> None:
    """PNG of images (C, H, W) in [0, 1], a column each; boxes in pixels of these images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch, Rectangle

    colours = plt.get_cmap("tab10" if len(classes) <= 10 else "tab20")
    shape = (2, len(images))
    figure, axes = plt.subplots(*shape, figsize=(4 * len(images), 7), squeeze=False)
    for row, (title, boxes) in enumerate((("true", true), ("found", found))):
        for axis, image, here in zip(axes[row], images, boxes, strict=True):
            shown = image if len(image) == 3 else image[:1].expand(3, -1, -1)
            axis.imshow(shown.permute(1, 2, 0).cpu().numpy())
            axis.set_axis_off()
            for i, (left, top, right, bottom) in enumerate(here["boxes"].tolist()):
                score = float(here["scores"][i]) if "scores" in here else 1.0
                if score < LEAST_SCORE:
                    continue
                colour = colours(int(here["labels"][i]) % colours.N)
                size = (right - left, bottom - top)
                axis.add_patch(Rectangle((left, top), *size, fill=False, color=colour, lw=1.5))
                if title == "found":
                    axis.text(left, top, f"{score:.2f}", color=colour, fontsize=7, va="bottom")
        axes[row][0].set_title(title, loc="left")
    patches = [Patch(color=colours(k % colours.N), label=name) for k, name in enumerate(classes)]
    figure.legend(handles=patches[:20], loc="lower center", ncols=min(10, len(patches)))
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    data = BytesIO()
    figure.savefig(data, dpi=80)
    plt.close(figure)
    atomic_write(path, data.getvalue())
