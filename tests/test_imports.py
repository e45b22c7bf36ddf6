"""The levels of the package: a file imports from lower levels only, and no file is unplaced."""

import ast
import re
from pathlib import Path

import pytest

import byol

ROOT = Path(byol.__file__).parent

# Formulas first, the command line last. Files of one level do not know each other; where some of
# them build on others, a fraction says in which order.
LEVELS: dict[str, float] = {
    # 0: no import from the package at all (formulas, plain values)
    "errors": 0, "console": 0, "viewspec": 0, "rng": 0, "losses": 0, "schedules": 0, "ops": 0.1,
    "blurring": 0, "resampling": 0,
    "optim": 0, "metrics": 0, "pinned": 0,
    "networks.standardised": 0, "networks.spanning": 0, "networks.unseen": 0,
    "networks.recompute": 0, "networks.smallmaps": 0,
    "networks.heads": 0.1, "networks.norm": 0.1,
    "data.embedded": 0, "data.rawboxes": 0, "data.labels": 0, "data.__init__": 0,
    "data.pixels": 0, "data.jpeg": 0, "data.tiff": 0.1, "data.decode": 0.2,
    "data.remote": 0.5, "data.listing": 0.6,
    "engine.__init__": 0, "networks.__init__": 0, "tasks.__init__": 0,
    # 1: views, networks, sources of images
    "views": 1, "gated": 1.1, "objective": 1, "networks.resnet": 0.5, "networks.convnet": 1,
    "engine.files": 1, "data.arrays": 1, "data.shardindex": 0.9, "data.shards": 1,
    "data.objects": 1, "data.loader": 1, "data.voc": 1, "data.coco": 1, "data.boxes": 1.1,
    "networks.encoder": 1.5, "networks.external": 1.6, "networks.official": 1,
    "networks.statedict": 1, "networks.foreign": 1.7, "networks.dense": 1.6,
    "networks.detector": 1.6,
    "data.folders": 1.5, "data.source": 1.6, "data.nyu": 1.5, "data.pairs": 1.6,
    "data.reader": 1.7, "data.statistics": 1.7, "data.prepared": 1.7, "data.layouts": 1.7,
    "data.benchmarks": 1.8, "data.resident": 1.8, "data.files": 1.8, "data.loading": 1.9,
    "data.dense": 1.9,
    # 2: what a run consists of
    "config": 2, "options": 2.1, "protocols": 2.2, "checks": 2.2, "learner": 2, "monitor": 2.5,
    # 3 and 4: the engine and the loop
    "engine.device": 3, "engine.doctor": 3.1, "engine.memory": 3, "engine.signals": 3,
    "engine.place": 3, "engine.lost": 3,
    "engine.meeting": 3.05,
    "engine.processes": 3.1, "engine.checkpoint": 3.2, "engine.opening": 3.2,
    "engine.gradients": 3.2, "engine.optimizer": 3.2, "engine.log": 3, "engine.runfolder": 3,
    "engine.captured": 3, "engine.progress": 3.1, "engine.standing": 3.3,
    "engine.upcoming": 3.3, "engine.step": 3.3, "engine.watch": 3.4, "engine.fit": 4,
    # 5 to 8: tasks, recipes, the public functions, the command line
    "tasks.beside": 4.5, "tasks.papertable": 4.5, "tasks.parts": 4.5, "tasks.sidebyside": 4.5,
    "tasks.subject": 4.5, "tasks.training": 4.5,
    "tasks.logistic": 4.5, "tasks.augment": 4.6, "tasks.subsets": 4.6, "tasks.features": 4.7,
    "tasks.precision": 4.7, "tasks.extraction": 4.75, "tasks.serving": 4.8,
    "tasks.boxpicture": 4.8, "tasks.scenes": 4.8,
    "tasks.finetune": 4.8, "tasks.dense": 4.8, "tasks.knn": 5, "tasks.linear": 5,
    "tasks.semisup": 5.1, "tasks.supervised": 5.1, "tasks.transfer": 5.2, "tasks.segment": 5,
    "tasks.depth": 5, "tasks.detect": 5,
    "relatives": 5.9, "recipes": 6, "resolve": 6.5, "build": 6.5, "baselines": 6.6,
    "report": 7, "collect": 7, "comparison": 7.2, "pretraining": 7.3, "api": 7.5, "__init__": 7.8,
    # the lab: tables without torch, then what runs and shows them
    "lab.__init__": 0, "lab.rows": 7, "lab.factors": 7.1, "lab.mechanisms": 7.1,
    "lab.tables": 7.2, "lab.table": 7.2, "lab.pictures": 7.3, "lab.compare": 7.3,
    "lab.plan": 7.6, "lab.run": 7.7, "lab.row": 9,
    "parser": 7.9, "cli": 8, "__main__": 9,
}  # fmt: skip
TORCHLESS = (
    "errors",
    "console",
    "viewspec",
    "config",
    "options",
    "checks",
    "schedules",
    "rng",
    "protocols",
    "relatives",
    "recipes",
    "lab.rows",
    "lab.factors",
    "lab.mechanisms",
    "lab.tables",
    "parser",
    "cli",
    "__init__",
)


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


FILES = {_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def _resolve(dotted: str) -> str | None:
    """byol.data.source -> data.source; None for what is no file of the package."""
    parts = dotted.split(".")
    if parts[0] != "byol":
        return None
    name = ".".join(parts[1:]) or "__init__"
    return next((found for found in (name, f"{name}.__init__") if found in FILES), None)


def _imports(path: Path) -> set[str]:
    """The files of the package that one imports, wherever in it the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name for alias in node.names if (name := _resolve(alias.name))}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            module = node.module or ""
            for alias in node.names:  # a file, or something out of a file
                name = _resolve(f"{module}.{alias.name}") or _resolve(module)
                found |= {name} if name else set()
    return found


def test_every_file_has_a_level() -> None:
    assert set(FILES) - set(LEVELS) == set(), "new files: give them a level"
    assert set(LEVELS) - set(FILES) == set(), "levels of files that are gone"


@pytest.mark.parametrize("name", list(FILES))
def test_imports_point_downwards(name: str) -> None:
    for imported in _imports(FILES[name]):
        assert LEVELS[imported] < LEVELS[name], f"{name} imports {imported}"


def test_edges_are_found() -> None:
    """Plain, inside a function, of a package and of a name: none escapes."""
    assert {"ops", "rng", "viewspec"} == _imports(FILES["views"])
    assert {"api", "recipes", "engine.doctor", "errors"} < _imports(FILES["cli"])
    assert "engine.checkpoint" in _imports(FILES["engine.standing"])


@pytest.mark.parametrize("name", TORCHLESS)
def test_help_is_quick_as_torch_is_not_imported(name: str) -> None:
    """At the top of the files that the command line needs to show its help."""
    for node in ast.parse(FILES[name].read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        heavy = ("torch", "timm", "torchvision", "sklearn", "matplotlib", "pyarrow")
        assert not [found for found in names if found.split(".")[0] in heavy]


def test_the_walk_of_one_batch_names_what_there_is() -> None:
    text = (ROOT.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    stops = re.findall(r"`([\w/]+)\.py(?:: ([\w.]+))?`", text)
    assert len(stops) > 15
    for file, name in stops:
        path = ROOT / f"{file}.py"
        assert path.is_file() or (ROOT.parents[1] / f"{file}.py").is_file(), file
        for part in name.split(".") if name else ():
            assert re.search(rf"(?:def|class) {part}\b", path.read_text()), f"{file}.py: {part}"
