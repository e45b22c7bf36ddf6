"""What kills, many processes and a billion images do to a run."""

from typing import Any

from benchmarks.shown.markdown import markdown, where


def kill(table: dict[str, Any]) -> str:
    """What benchmarks/kill.py met."""
    r = table["result"]
    words = "are equal byte for byte" if r["equal"] else "DIFFER"
    return (
        f"{r['kills']} kills, {r['during_save']} of them while a checkpoint was being written; "
        f"uninterrupted {r['seconds_uninterrupted']:.0f} seconds. The two encoders {words}."
        f"\n\n`{table['command']}`\n\n{where(table)}."
    )


def fault(table: dict[str, Any]) -> str:
    """What benchmarks/fault.py met."""
    r = table["result"]
    left = ", ".join(r["left_behind"]) or "nothing"
    return (
        f"{r['kills']} kills in a run of {r['processes']} processes, {r['during_save']} of them "
        f"while a checkpoint was being written, ranks {', '.join(map(str, r['ranks']))}: exit code "
        f"{r['exit_code']}, largest difference of a weight {r['difference']}, left behind {left}. "
        f"{r['seconds_undisturbed']} seconds undisturbed, {r['seconds_killed']} killed."
        f"\n\n`{table['command']}`\n\n{where(table)}."
    )


def scaling(table: dict[str, Any]) -> str:
    """A row a measurement of benchmarks/scaling.py, the model beside it; then the constants."""
    cores = table["environment"]["cores"]
    header = ["scaling", "processes", "images each", "step, ms", "alone, ms", "silent, ms"]
    header += ["communication, %"]
    header += ["model: step, ms", "communication, %"]
    body = [
        [
            r["scaling"],
            f"{r['processes']}{' (over-subscribed)' if r['processes'] > cores else ''}",
            r["images_each"],
            *(1000 * r[key] for key in ("seconds", "alone", "silent")),
            100 * r["communication"],
            1000 * r["predicted_seconds"],
            100 * r["predicted_communication"],
        ]
        for r in table["rows"]
    ]
    c = table["constants"]
    counted = [line["counted"] for line in table["measured"] if "counted" in line]
    count = next(iter(counted[0].values()))["reductions"] if counted else 0
    constants = (
        f"Measured: {1000 * c['compute']:.1f} ms an image, {100 * c['norms_over_processes']:.0f} % "
        f"more with norms over processes, noise {c['noise']:.2f}, reading "
        f"{1000 * c['reading']:.2f} ms an image, latency {1e6 * c['latency']:.0f} us, "
        f"{c['bandwidth'] / 1e9:.2f} GB/s, {c['gradient_bytes'] / 1e6:.0f} MB of gradients, "
        f"{count} reductions of norm statistics a step ({c['norm_layers']} layers), "
        f"{c['norm_bytes']:.0f} bytes each."
    )
    sizes = {k: v for line in table["measured"] for k, v in line.get("reductions", {}).items()}
    reduced = markdown(
        ["all-reduce, bytes", *(f"{world} processes, ms" for world in sizes)],
        [[n, *(f"{1000 * sizes[w][n]:.2f}" for w in sizes)] for n in next(iter(sizes.values()))],
    )
    load = f"{where(table)}, {cores} cores; load of other work when it began: {table['load']:.1f}."
    return "\n\n".join([markdown(header, body), constants, reduced, f"`{table['command']}`", load])


def billion(table: dict[str, Any]) -> str:
    """A row a size of benchmarks/billion.py."""
    header = ["images", "index, GB", "start, s", "order, ms a step", "places, ms a step"]
    header += ["memory, MB", "pages of the index, MB", "pickled, bytes"]
    keys = ["file_gb", "start_seconds", "order_ms_a_step", "places_ms_a_step"]
    keys += ["own_mb", "mapped_mb", "pickled_bytes"]
    rows = [[f"{r['images']:,}", *(f"{r[key]:g}" for key in keys)] for r in table["rows"]]
    made = table["making"]
    return (
        f"{markdown(header, rows)}\n\nA step is {table['batch']} images. Making an index of shards "
        f"that are read takes {made['seconds_a_million']:.1f} seconds and {made['bytes']:.0f} MB a "
        f"million images.\n\n`{table['command']}`\n\n{where(table)}."
    )
