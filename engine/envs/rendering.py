"""Renders one environment while a policy acts in it.

Gymnasium's own rendering is used. Atari's vectorised environments, which policies are trained in,
render nothing: a second one with the same seed and the same actions, whose observations are whole
frames in colour, shows what happens in the first.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, Protocol

import gymnasium
import msgspec
import numpy as np
import numpy.typing as npt

from engine.blame import told
from engine.envs.extras import install_command
from engine.envs.make import VectorEnvironment, make_vector_env
from engine.envs.names import extra_of, family_of
from engine.envs.pool.catalogue import gymnasium_twin
from engine.envs.torch_vector import is_of_tensors_only
from engine.errors import ConfigError, RunFailedError
from engine.spec import EnvSpec, Scalar

Frame = npt.NDArray[np.uint8]
"""A picture, [height, width, 3]: red, green, blue."""
RGB_ARRAY = "rgb_array"
DEFAULT_FPS = 30.0
ATARI_FRAMES_PER_S = 60.0
ATARI_FRAME_SKIP = 4
"""Unless `env.kwargs` has another `frameskip`."""
TWIN_KWARGS: dict[str, Scalar] = {
    "grayscale": False,
    "img_height": 210,
    "img_width": 160,
    "stack_num": 1,
}
"""What makes an observation of Atari a whole frame. None of it changes what happens in the game."""
HOW_TO_RENDER = (
    'an environment that renders has metadata = {"render_modes": ["rgb_array"], "render_fps": 30},'
    " takes render_mode in its constructor, and has render(), which returns uint8 [H, W, 3]"
)


class RenderedEnv(Protocol):
    """One environment, as a vector of one, that shows what it looks like.

    Attributes:
        env: Takes flat actions [1, ...], as those of `make_vector_env`.
        fps: Steps per second at which it is meant to be watched.
    """

    env: VectorEnvironment
    fps: float

    def reset(self, seed: int) -> tuple[Any, dict[str, Any]]:
        """Begins an episode; observation [1, ...] and info."""
        ...

    def step(
        self, action: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step, as that of a vector environment."""
        ...

    def frame(self) -> Frame:
        """What it looks like now.

        Raises:
            ConfigError: It cannot be rendered.
        """
        ...

    def close(self) -> None: ...


def make_rendered_env(spec: EnvSpec) -> RenderedEnv:
    """Makes one environment that can be rendered, in the way that `make_vector_env` would. It is
    Gymnasium's also where EnvPool has stepped: those are equal.

    Args:
        spec: Of the run; how many environments an actor has does not matter.

    Raises:
        ConfigError: It cannot be made, or not for rendering.
    """
    twin = gymnasium_twin(spec)
    own = msgspec.structs.replace(twin, num_envs=1, num_splits=1, step_latency_ms=0.0)
    if family_of(own.registered_id) == "ALE" and not own.wrappers:
        return _AtariTwins(own)
    return _SelfRendered(own)


def prepare_drivers() -> None:
    """Lets libraries draw without a display where there is none, and without sound.

    To be called before environments are made for the first time: some libraries look at this when
    they are imported.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    if not has_display():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("MUJOCO_GL", "egl")


def has_display() -> bool:
    """Whether a window can be opened here, as far as the environment's variables tell."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class _SelfRendered:
    """An environment with a `render` of its own."""

    def __init__(self, spec: EnvSpec) -> None:
        self._spec = spec
        try:
            with warnings.catch_warnings():  # this says it better below
                warnings.filterwarnings("ignore", message=".*render_mode")
                self.env = make_vector_env(spec, RGB_ARRAY)
        except ConfigError as error:
            if isinstance(error.__cause__, TypeError) and _can_be_made(spec):
                raise _unable(spec, "its constructor takes no render_mode") from error
            if is_of_tensors_only(spec, error):
                raise _unable(spec, "it has only a version of tensors") from error
            raise
        modes = self.env.metadata.get("render_modes", [])
        if RGB_ARRAY not in modes:
            self.env.close()
            listed = ", ".join(map(str, modes)) or "none"
            raise _unable(spec, f"its metadata has no render mode rgb_array, but {listed}")
        self.fps = float(self.env.metadata.get("render_fps") or DEFAULT_FPS)

    def reset(self, seed: int) -> tuple[Any, dict[str, Any]]:
        return self.env.reset(seed=seed)

    def step(
        self, action: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        return self.env.step(action)

    def frame(self) -> Frame:
        try:
            with warnings.catch_warnings():  # of what is no picture, which is an error here
                warnings.filterwarnings("ignore", message=".*rendering should return")
                shown: object = self.env.render()
        except gymnasium.error.DependencyNotInstalled as error:
            fix = extra_of(str(error)) or install_command("video", "pygame-ce")
            raise ConfigError(
                f"{self._spec.id} cannot be rendered: {error}", where="env.id", fix=fix
            ) from error
        except Exception as error:
            raise ConfigError(
                f"{self._spec.id} cannot be rendered: {told(error)}", where="env.id"
            ) from error
        return picture_of(shown[0] if isinstance(shown, (tuple, list)) else shown, self._spec)

    def close(self) -> None:
        self.env.close()


class _AtariTwins:
    """Atari's environment as it was trained in, and its twin in colour."""

    def __init__(self, spec: EnvSpec) -> None:
        twin = msgspec.structs.replace(spec, kwargs={**spec.kwargs, **TWIN_KWARGS})
        self._spec = spec
        self.env = make_vector_env(spec)
        self._twin = make_vector_env(twin)
        skip = spec.kwargs.get("frameskip") or ATARI_FRAME_SKIP
        self.fps = ATARI_FRAMES_PER_S / float(skip)
        self._frame: object = None

    def reset(self, seed: int) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed)
        self._frame = self._twin.reset(seed=seed)[0]
        return observation, info

    def step(
        self, action: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        result = self.env.step(action)
        self._frame, *shown = self._twin.step(action)[:4]
        if any(bool(a[0] != b[0]) for a, b in zip(result[1:4], shown, strict=True)):
            raise RunFailedError(
                "the copy of the game that is shown differs from the one that is played",
                where=f"env.id {self._spec.id}",
            )
        return result

    def frame(self) -> Frame:
        return picture_of(np.asarray(self._frame)[0, -1], self._spec)

    def close(self) -> None:
        self.env.close()
        self._twin.close()


def _can_be_made(spec: EnvSpec) -> bool:
    """Whether it can, where nothing is rendered."""
    try:
        make_vector_env(spec).close()
    except ConfigError:
        return False
    return True


def picture_of(shown: object, spec: EnvSpec) -> Frame:
    """What `render` has returned, as [H, W, 3]; an alpha channel is left out, grey is grey.

    Raises:
        ConfigError: It is no picture.
    """
    picture = np.asarray(shown)
    if picture.ndim == 2:
        picture = picture[..., None].repeat(3, axis=-1)
    is_picture = picture.ndim == 3 and picture.shape[-1] in (3, 4) and picture.size > 0
    if not is_picture or picture.dtype != np.uint8:
        found = f"{picture.dtype} {picture.shape}" if shown is not None else "None"
        raise _unable(spec, f"render() returned {found}, not uint8 [H, W, 3]")
    return picture[..., :3]


def _unable(spec: EnvSpec, why: str) -> ConfigError:
    return ConfigError(f"{spec.id} cannot be rendered: {why}", where="env.id", fix=HOW_TO_RENDER)
