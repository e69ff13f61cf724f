"""Shows a detached run as `up` does, until it ends or the user leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.control_protocol import Failed
from engine.errors import EXIT_INTERRUPTED, ConfigError, HostUnreachableError
from engine.supervision.host_state import HostState
from tianji_cli.commands.fetch import refuse_incomplete
from tianji_cli.commands.outcome import DetachedDocument, report_outcome
from tianji_cli.interrupts import Interrupts
from tianji_cli.output import Output
from tianji_cli.render.live import Display, display_for
from tianji_cli.runs.detached import DetachedRun, HostAnswer
from tianji_cli.runs.following import RunFollower, changes, has_ended, silent_hosts
from tianji_cli.runs.monitor import RunOutcome
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.run_dir import RunPaths, command_for, resolve_run

LOOK_S = 5.0
"""How often all hosts are asked whether the run still runs; a host that says it has ended is
believed only after that."""
POLL_S = 0.2


def attach_command(results: Path, name: str | None, output: Output, *, trusts: bool = False) -> int:
    """Shows a run until it has ended, copies its files here, and prints its outcome.

    Returns:
        The exit code of its outcome, as of `up`; 130 if the user leaves it before its end.

    Raises:
        ConfigError: No such run, or it is not detached.
        HostUnreachableError: No host of it answers, or not all of its files are here.
        PreflightError: Files did not arrive, or cannot be written here.
    """
    run = DetachedRun(resolve_run(results, name), consent=Consent(output, trusts))
    if not run.deployment.is_collected:
        answers = run.look(collects=False)
        _refuse_attached(run, answers)
        if not has_ended(answers) and not _Attached(run, output, answers).show():
            return _leave(run.paths, output)
    return _conclude(run, output)


def _refuse_attached(run: DetachedRun, answers: Sequence[HostAnswer]) -> None:
    """Raises if nobody answers, or if the command that started the run still shows it."""
    if all(answer.findings is None for answer in answers):
        assert answers[0].error is not None
        raise HostUnreachableError(answers[0].error.what, where=answers[0].error.where)
    states = [a.findings.state for a in answers if a.findings and a.findings.state]
    is_detached = run.deployment.is_detached or any(state.is_detached for state in states)
    if not is_detached and any(answer.is_running for answer in answers):
        raise ConfigError(
            "it is not detached: the `tianji up` that started it shows it, and ends it",
            where=run.paths.run_id,
            fix=f"{command_for('logs -f', run.paths.root)} follows it beside that command",
        )


class _Attached:
    """The display of a run that runs elsewhere.

    Args:
        run: The run.
        output: Where it is shown.
        answers: Of its hosts, a moment ago.
    """

    def __init__(self, run: DetachedRun, output: Output, answers: Sequence[HostAnswer]) -> None:
        self._run = run
        self._output = output
        self._silent: set[str] = set()
        self._num_failures: dict[str, int] = {}
        self._display: Display | None = None
        self._begin = answers

    def show(self) -> bool:
        """Shows the run until it has ended; False if the user interrupts before."""
        interrupts = Interrupts()
        self._output.say(f"run {self._run.paths.run_id} · attached; Ctrl-C leaves it running")
        follower = RunFollower(self._run, LOOK_S, reads_states=True)
        self._display = display_for(
            self._output, self._run.paths.run_id, on_interrupt="leaves it running"
        )
        try:
            with interrupts.installed(follower.stop):
                return self._follow(follower)
        finally:
            follower.stop()
            self._display.close()

    def _follow(self, follower: RunFollower) -> bool:
        is_over = self._take_answers(self._begin)
        while not is_over and not follower.is_stopped:
            match follower.next(POLL_S):
                case HostState() as state:
                    self._take_state(state)
                case list() as answers:
                    is_over = self._take_answers(answers)
        return is_over

    def _take_answers(self, answers: Sequence[HostAnswer]) -> bool:
        """Shows what is new in them; returns whether the run has ended."""
        for text in changes(answers, self._silent):
            self._output.say(text)
        self._silent = silent_hosts(answers)
        for answer in answers:
            if answer.findings is not None and answer.findings.state is not None:
                self._take_state(answer.findings.state)
        return has_ended(answers)

    def _take_state(self, state: HostState) -> None:
        for failure in state.failures[self._num_failures.get(state.host, 0) :]:
            self._output.say(f"{failure.address} on {state.host} {failure.cause}")
        self._num_failures[state.host] = len(state.failures)
        if state.progress is not None and self._display is not None:
            self._display.show(state.progress)


def _leave(paths: RunPaths, output: Output) -> int:
    again, down = command_for("attach", paths.root), command_for("down", paths.root)
    output.say(f"run {paths.run_id} continues; {again} shows it again, {down} stops it")
    if output.is_json:
        output.document(DetachedDocument(run_id=paths.run_id))
    return EXIT_INTERRUPTED


def _conclude(run: DetachedRun, output: Output) -> int:
    """Copies what is on the hosts of a run that has ended, and prints its outcome."""
    answers = [] if run.deployment.is_collected else run.fetch()
    if not run.paths.summary.is_file():
        refuse_incomplete(run.paths, answers)  # its summary may be where nobody answers
    run.note_ended()
    outcome = RunOutcome(failures=_failures(answers))
    code = report_outcome(run.paths, outcome, was_interrupted=False, output=output)
    refuse_incomplete(run.paths, answers)
    if any(part.host.connection != "local" for part in run.deployment.parts) and answers:
        output.say(f"{command_for('down', run.paths.root)} removes what is on its hosts")
    return code


def _failures(answers: Sequence[HostAnswer]) -> list[Failed]:
    states = [a.findings.state for a in answers if a.findings and a.findings.state]
    return [failure for state in states for failure in state.failures]
