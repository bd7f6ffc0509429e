"""``config.pbtxt`` of the two models, built as protobuf and compared as protobuf.

It holds what all versions of a model share; what belongs to one version is in ``engine.json``.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

from checkpoints.errors import ExportError
from serving.config import ExportConfig
from serving.tensors import INPUTS, OUTPUTS, Tensor

__all__ = ["TARGET_MODEL", "differences", "infer_model_config", "model_config", "parse", "render"]

TARGET_MODEL = "TARGET_MODEL"
"""Parameter of ``NAME_infer`` that names the model it asks."""

_KINDS = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}


def model_config(config: ExportConfig) -> pb.ModelConfig:
    """Return the config of the decoupled model ``config.name``.

    Raises:
        ExportError: a value does not fit its field; the message names the field.
    """
    model = _base(config, config.name)
    _set(model.model_transaction_policy, "decoupled", True)
    _add_tensors(model, INPUTS)
    group = model.instance_group.add()
    _set(group, "name", "engine")
    _set(group, "count", config.instances)
    # A model that is spread over several GPUs places itself: Triton must bind it to none.
    kind = "KIND_MODEL" if config.device_map == "auto" else _KINDS[config.device]
    _set(group, "kind", pb.ModelInstanceGroup.Kind.Value(kind))
    return model


def infer_model_config(config: ExportConfig) -> pb.ModelConfig:
    """Return the config of the non-decoupled model ``NAME_infer``, which passes requests on to the model."""
    model = _base(config, f"{config.name}_infer")
    _add_tensors(model, tuple(one for one in INPUTS if not one.streaming_only))
    group = model.instance_group.add()
    _set(group, "name", "front")
    _set(group, "count", 1)
    _set(group, "kind", pb.ModelInstanceGroup.KIND_CPU)
    _set(model.parameters[TARGET_MODEL], "string_value", config.name)
    return model


def render(model: pb.ModelConfig) -> str:
    """Return the text of ``config.pbtxt``."""
    text: str = text_format.MessageToString(model)
    return "# Written by trimaran export; all versions of the model share it.\n" + text


def parse(text: str, where: str) -> pb.ModelConfig:
    """Read a ``config.pbtxt``.

    Raises:
        ExportError: it is no ModelConfig; the message names line and field.
    """
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise ExportError(
            f"{where} is not a Triton model config: {error}; correct it or remove it"
        ) from error


def differences(existing: pb.ModelConfig, wanted: pb.ModelConfig) -> list[str]:
    """Return ``field: existing -> wanted`` for each field in which the two differ.

    Top-level fields that export does not write (a warm-up someone added) are left alone.
    """
    old, new = _flatten(existing), _flatten(wanted)
    ours = {path.split(".")[0].split("[")[0] for path in new}
    old = {path: value for path, value in old.items() if path.split(".")[0].split("[")[0] in ours}
    return [
        f"{path}: {_show(old.get(path))} -> {_show(new.get(path))}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def _base(config: ExportConfig, name: str) -> pb.ModelConfig:
    model = pb.ModelConfig()
    _set(model, "name", name)
    _set(model, "backend", "python")
    _set(model, "max_batch_size", config.max_batch_size)
    _set(model.version_policy.latest, "num_versions", 1)
    batching = model.dynamic_batching
    _set(batching, "max_queue_delay_microseconds", config.queue_delay_us)
    batching.preferred_batch_size.extend(config.preferred_batch_sizes)
    policy = batching.default_queue_policy
    _set(policy, "timeout_action", pb.ModelQueuePolicy.REJECT)
    _set(policy, "default_timeout_microseconds", config.queue_timeout_ms * 1000)
    _set(policy, "allow_timeout_override", True)
    _set(policy, "max_queue_size", config.max_queue_size)
    for tensor in OUTPUTS:
        output = model.output.add()
        _set(output, "name", tensor.name)
        _set(output, "data_type", _data_type(tensor))
        output.dims.append(-1 if tensor.variable else 1)
    return model


def _add_tensors(model: pb.ModelConfig, tensors: tuple[Tensor, ...]) -> None:
    for tensor in tensors:
        entry = model.input.add()
        _set(entry, "name", tensor.name)
        _set(entry, "data_type", _data_type(tensor))
        entry.dims.append(-1 if tensor.variable else 1)
        # All optional, and ragged where the length varies: what differs is never batched by Triton otherwise.
        _set(entry, "optional", True)
        if tensor.variable:
            _set(entry, "allow_ragged_batch", True)


def _data_type(tensor: Tensor) -> int:
    value: int = pb.DataType.Value(f"TYPE_{tensor.type}")
    return value


def _set(message: Any, field: str, value: Any) -> None:
    try:
        setattr(message, field, value)
    except (TypeError, ValueError, AttributeError) as error:
        where = f"{message.DESCRIPTOR.name}.{field}"
        raise ExportError(f"config.pbtxt: field {where} cannot be {value!r}: {error}") from error


def _flatten(model: pb.ModelConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(item, f"{path}.{key}" if path else key)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                walk(item, f"{path}[{item.get('name', index)}]")
        else:
            flat[path] = value

    walk(json_format.MessageToDict(model, preserving_proto_field_name=True), "")
    return flat


def _show(value: Any) -> str:
    return "not set" if value is None else str(value)
