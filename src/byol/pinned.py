"""From the host's memory to a device without waiting for what the device is doing."""

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on the device, in the order of its stream. A copy from memory that is not pinned
    would hold the host until all earlier work is done."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
