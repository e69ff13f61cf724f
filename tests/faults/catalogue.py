"""Every fault that something is promised for, in the order of the table in docs/reliability.md.

What came of a fault, and how soon, is in no word of this file: tests say so
(`tests/helpers/fault_rows.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

FAULTS = "tests/processes/test_faults.py"
STUCK = "tests/processes/test_stuck_runs.py"
LAB = "tests/lab/test_faults.py"
CHECKPOINT = "tests/engine/executors/test_checkpoint.py"
STRANGERS = "tests/engine/wire/test_strangers.py"


@dataclass(frozen=True)
class Scenario:
    """One fault.

    Attributes:
        promised: What TianJi does about it.
        tests: Tests that show it beside those that report a row: of parts, or without a run.
        untested: What of it no test shows, and why; empty if nothing.
    """

    promised: str
    tests: tuple[str, ...] = ()
    untested: str = ""


SCENARIOS: dict[str, Scenario] = {
    "`kill -9` of an actor": Scenario(
        "reported with its signal, replaced within a budget, training continues, ledger balances",
        (f"{FAULTS}::test_without_a_budget_a_killed_actor_ends_the_run_by_name",),
    ),
    "actors that keep dying": Scenario(
        "the run fails, naming the actor, once the restart budget is used up",
        (f"{LAB}::test_a_death_that_ends_the_run_is_named",),
    ),
    "`kill -9` of a buffer": Scenario("the run fails, naming the role, exit 1"),
    "`kill -9` of a learner": Scenario(
        "the run fails, naming the role, exit 1, and says how to resume; other groups continue",
        (
            "tests/processes/test_policies.py::test_a_learner_killed_in_one_group_leaves_the_others_going",
            "tests/processes/test_resumed_runs.py::test_a_killed_heart_names_the_next_command_and_that_goes_on",
        ),
    ),
    "`kill -9` of the coordinator": Scenario("the run fails, naming the role, exit 1"),
    "`kill -9` of the controller": Scenario(
        "every host ends its own part; `down` cleans up",
        ("tests/lab/test_detached.py::test_down_cleans_up_after_a_killed_controller",),
    ),
    "`kill -9` of a supervisor or forkserver": Scenario(
        "its roles die with it; the error names it",
        untested="that no GPU memory is held",
    ),
    "the way to a host ends: its keeper or session killed": Scenario(
        "the host ends its own part; the run continues without its actors, or fails by name",
        (
            "tests/lab/test_sessions.py::test_a_session_that_dies_costs_its_host_and_not_the_run",
            "tests/lab/test_sessions.py::test_a_session_of_the_host_with_the_learner_that_dies_ends_the_run",
            "tests/connectors/test_keeper_ends.py::test_a_killed_keeper_ends_all_that_waits_and_names_its_host",
        ),
    ),
    "power of the learner's host lost": Scenario(
        "`--resume` continues on other hosts",
        ("tests/lab/test_resume.py::test_a_run_whose_learner_host_is_dead_goes_on_on_other_hosts",),
    ),
    "a host of several lost, learners update together": Scenario(
        "the run fails within 10 s, naming the host; `--resume` continues on fewer hosts",
        (
            "tests/engine/wire/test_learner_ring.py::test_a_neighbour_that_is_frozen_is_named",
            "tests/engine/wire/test_learner_ring.py::test_a_neighbour_that_leaves_is_named",
        ),
    ),
    "SIGSTOP of an actor": Scenario(
        "named with its stack, its peers continue; after SIGCONT its samples are checked for lag"
    ),
    "SIGSTOP of a learner": Scenario("only the learner is named, with its stack"),
    "SIGSTOP of a learner, longer than heartbeats": Scenario(
        "batches that become ready in the meantime wait for it"
    ),
    "a whole host frozen": Scenario(
        "given up by name, the others continue; once thawed, it ends its own roles"
    ),
    "network cut of seconds": Scenario(
        "survived without a restart", (f"{LAB}::test_a_short_cut_is_survived",)
    ),
    "network cut that lasts": Scenario(
        "the host is given up by name and ends its roles itself; it does not rejoin",
        (
            f"{LAB}::test_a_host_that_stays_cut_off_is_given_up_by_name",
            f"{LAB}::test_the_learner_cut_off_ends_the_run_on_all_hosts",
        ),
    ),
    "connections between hosts reset": Scenario(
        "messages in flight are requested again or counted as lost; no role is declared dead",
        (
            "tests/engine/wire/test_lost_messages.py::test_a_queue_gets_on_within_its_bound_and_its_books_balance",
            "tests/engine/wire/test_lost_messages.py::test_every_group_goes_on_merging_and_each_update_counts_once",
            "tests/engine/wire/test_lost_rollouts.py::test_the_run_gets_on_and_the_books_balance",
        ),
    ),
    "10 % loss and 200 ms of delay": Scenario("slower, but no role is declared dead"),
    "corrupt, cut or random frame": Scenario(
        "refused, its sender named; the next frame is read",
        (
            "tests/engine/wire/test_sockets.py::test_a_frame_that_must_not_be_decoded_is_reported_and_the_next_one_read",
            "tests/engine/wire/test_codec.py::test_a_header_with_any_byte_flipped_is_refused",
            "tests/fuzz/test_fuzz.py::test_any_frames_are_decoded_or_refused",
        ),
        untested="excluding repeated offenders: this is not done",
    ),
    "oversized message": Scenario(
        "the connection is closed before the message is read, then reopened",
        (f"{STRANGERS}::test_a_member_that_sends_too_much_is_hung_up_on_and_others_are_served",),
        untested="a log line: ZeroMQ reports it to neither side",
    ),
    "no key, wrong key, plaintext, HTTP, random bytes, slow loris": Scenario(
        "disconnected, never decoded; members are still served",
        (
            f"{STRANGERS}::test_a_stranger_is_hung_up_on_and_nothing_of_it_is_decoded",
            f"{STRANGERS}::test_strangers_that_hang_on_keep_nobody_out",
            f"{STRANGERS}::test_who_does_not_finish_its_greeting_is_hung_up_on_in_the_end",
            "tests/engine/wire/test_sockets.py::test_a_stranger_never_reaches_the_decoder",
        ),
        untested="a log line for each: strangers are not logged",
    ),
    "rollout that comes twice": Scenario(
        "dropped (identified by actor, incarnation and number), an event `duplicate`",
        (
            "tests/engine/roles/test_roles_buffer.py::test_a_duplicate_is_never_trained",
            "tests/engine/runtime/test_regressions.py::test_a_duplicate_does_not_upset_the_books",
        ),
    ),
    "old rollout replayed": Scenario("dropped like a duplicate"),
    "disk full": Scenario(
        "traces stop first, checkpoints stay intact, the run continues and reports it",
        (f"{CHECKPOINT}::test_a_disk_that_refuses_leaves_earlier_checkpoints_alone",),
    ),
    "`kill -9` while a checkpoint is written": Scenario(
        "the previous one loads; the partial one is ignored and removed",
        (
            f"{CHECKPOINT}::test_killed_at_any_byte_of_the_tensors_the_older_one_loads",
            f"{CHECKPOINT}::test_killed_between_any_two_steps_a_whole_one_loads",
        ),
    ),
    "damaged checkpoint": Scenario("named; the previous one is used"),
    "pickle as a checkpoint": Scenario(
        "not executed", (f"{CHECKPOINT}::test_a_pickle_is_never_executed",)
    ),
    "wall clock set one hour forward, then back, while a run goes on": Scenario(
        "durations and order of events are unaffected; an event `clock-set` records the change",
        (
            "tests/engine/host/test_wall_clock.py::test_a_clock_that_is_set_is_told_once_and_by_how_much",
            "tests/runs/test_identity.py::test_offsets_are_relative_to_the_coordinators_host",
        ),
    ),
    "the same `up` twice": Scenario(
        "refused, with the run's id",
        ("tests/provisioning/test_provision.py::test_a_run_of_this_name_on_the_host_is_refused",),
    ),
    "another version on a host": Scenario(
        "refused with both versions",
        (
            "tests/connectors/test_ssh_fleet.py::test_another_protocol_is_refused_at_join",
            "tests/runs/test_controller.py::test_another_protocol_names_both_and_what_mends_it",
            "tests/lab/test_environment.py::test_a_host_with_another_python_is_refused_with_both_versions",
        ),
    ),
    "damaged program or environment on a host": Scenario(
        "sent or made anew, which is said",
        (
            "tests/provisioning/test_verification.py::test_a_damaged_bundle_is_replaced",
            "tests/provisioning/test_verification.py::test_a_damaged_environment_is_made_anew",
            "tests/lab/test_environment.py::test_a_bundle_that_was_changed_on_its_host_is_sent_anew_and_that_is_said",
        ),
    ),
    "port taken": Scenario("a failed preflight that names the range, exit 3"),
    "one unreachable host of four": Scenario(
        "nothing is started, exit 4",
        ("tests/provisioning/test_provision.py::test_one_unreachable_host_closes_all_others",),
    ),
    "host key unknown or changed": Scenario(
        "refused; for an unknown key with the command that accepts it",
        (
            f"{LAB}::test_a_changed_host_key_is_refused",
            f"{LAB}::test_an_unknown_host_key_is_an_error_that_says_how_to_accept_it",
        ),
    ),
    "memory runs out (OOM kill)": Scenario(
        "distinguished from other SIGKILLs by the kernel's counter, with the memory last used",
        ("tests/engine/host/test_oom.py::test_a_kill_that_the_counter_knows_is_out_of_memory",),
    ),
    "environment that raises": Scenario("the run fails with its traceback, its id and the step"),
    "environment that hangs": Scenario(
        "named with its line; the run ends if nothing makes progress"
    ),
    "environment that returns NaN": Scenario(
        "one error names host, role, environment and step; nothing is learnt from it",
        (
            "tests/engine/envs/test_checked_env.py::test_what_is_no_number_is_refused_by_name",
            "tests/engine/executors/test_on_device.py::test_what_is_no_number_is_refused_on_a_device_too",
        ),
    ),
    "environment that returns a wrong shape": Scenario(
        "one error names host, role, environment and step",
        ("tests/engine/envs/test_checked_env.py::test_a_shape_that_was_not_announced_is_refused",),
    ),
    "GPU missing where one is named": Scenario(
        "refused; if none is named, the CPU is used and reported",
        (
            "tests/processes/test_policies.py::test_without_a_gpu_the_processor_is_used_and_named_unless_gpus_were_asked_for",
        ),
    ),
    "Ctrl-C once": Scenario("the run stops gracefully, exit 130; nothing is left"),
    "Ctrl-C twice": Scenario("the run is killed, even if it cannot stop; nothing is left"),
    "Ctrl-Z, and `fg` later": Scenario(
        "on this machine the run continues, and the command finds it again, or how it ended; over"
        " SSH each host ends its part after 15 s without a message: use `--detach` instead",
        (f"{FAULTS}::test_a_command_stopped_until_its_run_has_ended_still_tells",),
        untested="the same over SSH",
    ),
    "a cluster manager ends the job": Scenario(
        "SIGTERM to every process at once: the run stops gracefully, with its last checkpoint,"
        " before the SIGKILL that follows after 30 s; nothing is left",
        (
            "tests/processes/test_manager_ends.py::test_also_if_the_simulators_of_its_environments_end_first",
        ),
    ),
    "a node of a cluster lost": Scenario(
        "its host is given up by name, the others continue; what is on it is named, exit 7"
    ),
    "twelve hours": Scenario(
        "memory and descriptors constant, logs bounded",
        (
            "tests/processes/test_soak.py::test_memory_and_descriptors_stay_flat",
            "tests/engine/host/test_log_cap.py::test_a_log_is_emptied_and_its_end_kept_while_it_is_written_to",
        ),
        untested="twelve hours: the soak is minutes long",
    ),
    "a hundred faults in a random order, on actors and links": Scenario(
        "training still reaches its threshold; ledger balances, nothing is left",
        ("tests/lab/test_random_faults.py::test_a_run_survives_a_minute_of_them",),
    ),
    "a random order of faults on everything": Scenario(
        "each run continues, or fails with its cause and `--resume` continues it; nothing is left",
        untested="in the suite: see below",
    ),
}
"""Fault, and what is promised."""
