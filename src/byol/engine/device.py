import contextlib, os, torch
def cores(): return len(os.sched_getaffinity(0))
def pick_device(name="auto"): return torch.device("cpu")
def pick_precision(device, name="auto"): return "bf16" if name=="auto" else name
def autocast(device, precision):
    return torch.autocast(device.type, torch.bfloat16, enabled=precision=="bf16")
def environment(): return {}
def make_deterministic(on): pass
def doctor(): return []
