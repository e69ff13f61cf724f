"""TensorBoard: event files below `tracking/tensorboard`, written with the `tensorboard` package.

A file cannot be continued without a gap or a repetition. So a tracker that begins again writes a
new file with everything, which tells TensorBoard to forget what it has read, and removes the old.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary as Values
from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.api_pb2 import DataType, Experiment, HParamInfo, Status
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.plugins.text import metadata as text
from tensorboard.summary.writer.record_writer import RecordWriter

from engine.trace.summary import Summary
from tianji_cli.analysis.settings import Scalar
from tianji_cli.storage.run_dir import RunPaths, from_here
from tianji_cli.tracking.facts import RunFacts, figures_of, words_of
from tianji_cli.tracking.hints import quoted
from tianji_cli.tracking.series import Sample

VERSION = "brain.Event:2"
_STRING = 7  # DataType DT_STRING of TensorFlow


class TensorBoardSink:
    """See the module's first lines.

    Args:
        paths: The run.
    """

    def __init__(self, paths: RunPaths) -> None:
        self._directory = paths.tracking / "tensorboard"
        self.where = str(from_here(self._directory))
        self.hint = f"tensorboard --logdir {quoted(from_here(paths.root.parent))}"
        self._last_step = 0

    def begin(self, facts: RunFacts) -> Mapping[str, int]:
        former = sorted(self._directory.glob("events.out.tfevents.*"))
        self._file = _new_file(self._directory)
        self._writer = RecordWriter(self._file)
        now_s = facts.unix_s(0.0)
        self._add(Event(wall_time=now_s, file_version=VERSION))
        self._add(Event(wall_time=now_s, session_log=SessionLog(status=SessionLog.START)))
        settings = {name: value for name, value in facts.settings.items() if value is not None}
        start = SessionStartInfo(start_time_secs=now_s)
        for name, value in settings.items():
            _set(start.hparams[name], value)
        experiment = Experiment(hparam_infos=[_info(*item) for item in settings.items()])
        self._add_values(
            now_s,
            0,
            _hparams(hparams.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment)),
            _hparams(hparams.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)),
            _text("hyperparameters", _table(facts.settings)),
            _text("run", _table(facts.tags)),
        )
        self.flush()
        for path in former:
            path.unlink(missing_ok=True)
        self._facts = facts
        return {}

    def write(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            values = [
                Values.Value(tag=name, simple_value=value) for name, value in sample.values.items()
            ]
            self._add_values(self._facts.unix_s(sample.t_s), sample.env_steps, *values)

    def flush(self) -> None:
        self._file.flush()

    def end(self, facts: RunFacts, summary: Summary | None) -> None:
        if summary is not None:
            end_s = facts.unix_s(summary.wall_s)
            step = max(self._last_step, summary.env_steps_collected)
            status = "STATUS_SUCCESS" if summary.status == "ok" else "STATUS_FAILURE"
            ended = SessionEndInfo(status=Status.Value(status), end_time_secs=end_s)
            figures = figures_of(summary)
            self._add_values(
                end_s,
                step,
                *(Values.Value(tag=f"summary/{k}", simple_value=v) for k, v in figures.items()),
                _text("summary/words", _table(words_of(summary))),
                _hparams(hparams.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=ended)),
            )
        self._writer.close()

    def _add_values(self, unix_s: float, step: int, *values: Values.Value) -> None:
        self._last_step = max(self._last_step, step)
        self._add(Event(wall_time=unix_s, step=step, summary=Values(value=values)))

    def _add(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())


def _new_file(directory: Path) -> BinaryIO:
    """TensorBoard reads the files of a directory in the order of their names."""
    name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
    return (directory / name).open("xb")


def _set(target: object, value: Scalar) -> None:
    kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
    setattr(target, f"{kind}_value", value)


def _info(name: str, value: Scalar) -> HParamInfo:
    kind = "BOOL" if isinstance(value, bool) else "STRING" if isinstance(value, str) else "FLOAT64"
    return HParamInfo(name=name, type=DataType.Value(f"DATA_TYPE_{kind}"))


def _hparams(tag: str, data: HParamsPluginData) -> Values.Value:
    data.version = hparams.PLUGIN_DATA_VERSION
    plugin = SummaryMetadata.PluginData(
        plugin_name=hparams.PLUGIN_NAME, content=data.SerializeToString()
    )
    return Values.Value(
        tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=hparams.NULL_TENSOR
    )


def _text(tag: str, markdown: str) -> Values.Value:
    tensor = TensorProto(
        dtype=_STRING,
        string_val=[markdown.encode("utf-8", "backslashreplace")],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    return Values.Value(tag=tag, metadata=text.create_summary_metadata("", ""), tensor=tensor)


def _table(values: Mapping[str, Scalar]) -> str:
    """A table in Markdown, as the text tab shows it."""
    rows = [f"|{_cell(name)}|{_cell(value)}|" for name, value in values.items()]
    return "\n".join(["|key|value|", "|-|-|", *rows])


def _cell(value: Scalar) -> str:
    words = value if isinstance(value, str) else json.dumps(value)
    return " ".join(words.split()).replace("|", "\\|")
