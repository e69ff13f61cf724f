"""Sample Factory's asynchronous PPO on one task. Runs in Sample Factory's interpreter.

    python sample_factory_appo.py job.json

Sample Factory ends itself cleanly on SIGINT.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

from recorder import recorder_of_process
from torch_nets import is_shared, trunk

ENV = "tianji-bench"


def arguments_of(task: dict[str, Any], seed: int, scratch: str) -> list[str]:
    """Sample Factory's own command line; what is not named here is its default."""
    hp, network = task["algorithm"], task["network"]
    values = {
        "algo": "APPO",
        "env": ENV,
        "experiment": "cell",
        "train_dir": scratch,
        "restart_behavior": "overwrite",
        "device": "cpu",
        "seed": seed,
        "num_workers": task["workers"],
        "num_envs_per_worker": task["envs_per_worker"],
        "worker_num_splits": 2 if task["envs_per_worker"] % 2 == 0 else 1,
        "rollout": task["rollout_steps"],
        "recurrence": 1,
        "use_rnn": False,
        "batch_size": hp["minibatch_steps"],
        "num_batches_per_epoch": hp["batch_steps"] // hp["minibatch_steps"],
        "num_epochs": hp["num_epochs"],
        "learning_rate": hp["learning_rate"],
        "gamma": hp["discount"],
        "gae_lambda": hp["gae_lambda"],
        "ppo_clip_ratio": hp["clip_range"],
        "ppo_clip_value": 1e9,  # clips values to 1.0 by default; no other system does
        "exploration_loss_coeff": hp["entropy_coefficient"],
        "value_loss_coeff": hp["value_coefficient"],
        "max_grad_norm": hp["max_gradient_norm"],
        "nonlinearity": network["activation"],
        "actor_critic_share_weights": is_shared(network),
        "normalize_input": False,
        "normalize_returns": False,
        "reward_scale": 1.0,
        "with_vtrace": False,
        "value_bootstrap": True,
        "save_every_sec": 100000,
        "experiment_summaries_interval": 1,
        "train_for_env_steps": 10**12,
    }
    words = [f"--{name}={value}" for name, value in values.items()]
    return [*words, "--encoder_mlp_layers", *map(str, network["hidden_sizes"])]


class Claims:
    """Sample Factory's own counts, after each training step."""

    def __new__(cls, num_epochs: int) -> Any:  # noqa: ANN401 - the base class is Sample Factory's
        from sample_factory.algo.runners.runner import AlgoObserver

        recorder = recorder_of_process("learner")

        class Observer(AlgoObserver):  # type: ignore[misc]
            def on_training_step(self, seen: Any, training_iteration_since_resume: int) -> None:  # noqa: ANN401
                recorder.claimed(sum(seen.samples_collected))  # by its samplers
                total = sum(seen.env_steps.values())  # by its learner
                recorder.trained(total, total * num_epochs, training_iteration_since_resume)

        return Observer()


def make_env(env: dict[str, Any], *_: Any, **__: Any) -> Any:  # noqa: ANN401
    """Sample Factory calls it in its workers, so it must be found by name there."""
    from counted_env import make_counted

    return make_counted(env)


def make_encoder(network: dict[str, Any], cfg: Any, observations: Any) -> Any:  # noqa: ANN401
    """The task's convolutions; Sample Factory's own differ from them."""
    from sample_factory.model.encoder import Encoder

    class TaskEncoder(Encoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(cfg)
            self.trunk, self.num_features = trunk(network, observations["obs"].shape)

        def forward(self, batch: Any) -> Any:  # noqa: ANN401
            return self.trunk(batch["obs"])

        def get_out_size(self) -> int:
            return int(self.num_features)

    return TaskEncoder()


def main() -> None:
    """Trains until a signal comes."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    from sample_factory.algo.utils.context import global_model_factory
    from sample_factory.algo.utils.misc import ExperimentStatus
    from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
    from sample_factory.envs.env_utils import register_env
    from sample_factory.train import make_runner

    recorder = recorder_of_process("learner")
    recorder.phase("imported")
    register_env(ENV, functools.partial(make_env, job["task"]["env"]))
    network = job["task"]["network"]
    if is_shared(network):
        global_model_factory().register_encoder_factory(functools.partial(make_encoder, network))
    arguments = arguments_of(job["task"], job["seed"], job["scratch"])
    parser, _ = parse_sf_args(arguments, evaluation=False)
    _, runner = make_runner(parse_full_cfg(parser, arguments))
    runner.register_observer(Claims(job["task"]["algorithm"]["num_epochs"]))
    status = runner.init()
    recorder.phase("built")
    if status == 0:
        status = runner.run()
    recorder.phase("stopped")
    # Sample Factory answers an interrupt with its status INTERRUPTED, which is no failure here.
    sys.exit(0 if status in (ExperimentStatus.SUCCESS, ExperimentStatus.INTERRUPTED) else 1)


if __name__ == "__main__":
    main()
