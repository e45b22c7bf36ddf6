"""What the terminal shows of a run."""

import io

import pytest
from rich.console import Console

from byol.engine.progress import Progress, duration


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("byol.engine.progress.time.monotonic", clock)
    return clock


def test_plain_lines_every_ten_seconds_and_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(1000, 64, 100, "plain", "run") as progress:
        progress.advance(100, 0.0)
        for step in range(101, 126):
            clock.now += 1.0
            progress.advance(step, 0.25, loss=1.5, tau=0.99996)
        progress.say("kNN 45 %")
    out = capsys.readouterr().out.splitlines()
    expected = (
        "run: step 110/1000 | 64 images/s | 14 min 50 s left | waiting for data 25% | loss 1.5 | "
        "tau 0.99996"
    )
    assert out[0] == expected
    assert [line[:13] for line in out] == [
        "run: step 110", "run: step 120", "kNN 45 %", "run: step 125",
    ]  # fmt: skip


def test_speed_follows_recent_steps_and_starts_at_the_resume(clock: Clock) -> None:
    with Progress(10_000, 10, 5000, "quiet", "run") as progress:
        clock.now += 60.0  # the first step compiles
        progress.advance(5001, 0.0)
        assert "step 5001/10000 | 0.2 images/s" in progress.line()
        for step in range(5002, 5011):
            clock.now += 1.0
            progress.advance(step, 0.0)
        assert "step 5010/10000 | 10 images/s | 1 h 23 min left" in progress.line()


def test_a_run_that_waits_for_data_says_so_once(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(progress: Progress, seconds: int, waited: float) -> str:
        for _ in range(seconds):
            clock.now += 1.0
            progress.advance(progress._step + 1, waited)
        return "\n".join(x for x in capsys.readouterr().out.splitlines() if "--workers" in x)

    with Progress(10_000, 10, 0, "plain", "run") as progress:
        assert run(progress, 5, 0.5) == ""  # it may be a moment
        assert run(progress, 200, 0.0) == ""
        assert run(progress, 300, 0.04) == ""
        sentence = run(progress, 120, 0.2)
        assert "% of the time is spent waiting for data" in sentence and "\n" not in sentence
        assert run(progress, 120, 0.0) + run(progress, 120, 0.5) == ""


def test_quiet_prints_warnings_alone(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with Progress(10, 1, 0, "quiet", "run") as progress:
        clock.now += 20
        progress.advance(10, 0.0, loss=1.0)
        progress.say("a remark")
        progress.say("a warning", warning=True)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "a warning\n"


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, _environ={"TERM": "xterm"})
    monkeypatch.setattr("byol.engine.progress.Console", lambda: console)
    with Progress(10, 8, 0, "auto", "[run]") as progress:
        progress.advance(5, 0.0, loss=0.5)
        progress.say("[kept] as it is")
        progress.advance(10, 0.0, knn=45.0)
    text = screen.getvalue()
    assert "[kept] as it is" in text and "[run]" in text
    assert "step 10/10" in text and "knn 45" in text


def test_auto_is_plain_where_output_is_no_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(10, 1, 0, "auto", "run") as progress:
        clock.now += 1.0
        progress.advance(10, 0.0)
    assert capsys.readouterr().out == (
        "run: step 10/10 | 10 images/s | 0 s left | waiting for data 0%\n"
    )


def test_durations() -> None:
    assert [duration(s) for s in (44.6, 250, 7500, 273_600)] == [
        "45 s", "4 min 10 s", "2 h 05 min", "3 d 4 h",
    ]  # fmt: skip
