"""Python reads this at the start of every process of XingTian: its work gets counted.

XingTian starts its processes itself, so counting comes in where its modules are imported: at
`gym.make`, at its own Atari wrapper, and at its learner. Nothing else of it changes. Python 3.7,
old `gym` interface.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys

RAW = os.environ.get("TIANJI_BENCH_RAW", "")


class PatchingFinder(importlib.abc.MetaPathFinder):
    """Calls a function with a module as soon as that has been imported.

    Args:
        patches: By full module name.
    """

    def __init__(self, patches) -> None:  # type: ignore[no-untyped-def]
        self._patches = patches

    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name not in self._patches:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_patch(module) -> None:  # type: ignore[no-untyped-def]
            execute(module)
            self._patches[name](module)

        spec.loader.exec_module = execute_and_patch  # type: ignore[method-assign]
        return spec


def count_gym(gym) -> None:  # type: ignore[no-untyped-def]
    """Classic environments are counted as they are made; Atari's frames are no env steps."""
    make = gym.make

    def make_counted(name: str, **kwargs: object):  # type: ignore[no-untyped-def]
        env = make(name, **kwargs)
        return env if "NoFrameskip" in name else counted(env)

    gym.make = make_counted


def count_atari(wrappers) -> None:  # type: ignore[no-untyped-def]
    """Atari is counted outside of frame skip and no-ops."""
    make = wrappers.make_atari
    wrappers.make_atari = lambda env_info: counted(make(env_info))


def counted(env) -> object:  # type: ignore[no-untyped-def]
    """The same environment; the recorder of its process hears of each step."""
    import gym
    from recorder import EpisodeCounter

    class CountedEnv(gym.Wrapper):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(env)
            self._counter = EpisodeCounter()
            self._is_real_start = True

        def reset(self, **kwargs: object) -> object:
            if self._is_real_start:  # a lost life ends what XingTian learns from, not the game
                self._counter.reset()
            return self.env.reset(**kwargs)

        def step(self, action: object) -> object:
            state, reward, done, info = self.env.step(action)
            self._is_real_start = bool(info.get("real_done", True))
            self._counter.step(reward, done and self._is_real_start)
            return state, reward, done, info

    return CountedEnv()


def count_learner(learner) -> None:  # type: ignore[no-untyped-def]
    """Every training step is written down when it is done."""
    from recorder import recorder_of_process

    with open(os.path.join(os.path.dirname(RAW), "job.json")) as file:
        hp = json.load(file)["task"]["algorithm"]
    build = learner.TrainWorker.__init__

    def build_counted(self, *args: object, **kwargs: object) -> None:  # type: ignore[no-untyped-def]
        build(self, *args, **kwargs)
        train, recorder, updates = self.alg.train, recorder_of_process("learner"), [0]

        def train_counted(**options: object) -> object:
            loss = train(**options)
            updates[0] += 1
            is_ppo = hp["name"] == "ppo"
            samples = (
                self.actual_step * hp["num_epochs"] if is_ppo else updates[0] * hp["batch_size"]
            )
            recorder.trained(self.actual_step, samples, updates[0])
            return loss

        self.alg.train = train_counted

    learner.TrainWorker.__init__ = build_counted


if RAW:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path.append(os.path.dirname(here))
    patches = {
        "gym": count_gym,
        "xt.environment.gym.atari_wrappers": count_atari,
        "xt.framework.learner": count_learner,
    }
    sys.meta_path.insert(0, PatchingFinder(patches))
