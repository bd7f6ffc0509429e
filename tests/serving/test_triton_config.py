"""config.pbtxt says what DESIGN's table says, and a change of it is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from checkpoints.errors import ConfigError, ExportError
from serving.config import ExportConfig, ServeConfig
from serving.triton_config import TARGET_MODEL, differences, infer_model_config, model_config, parse, render


def config(**changed: object) -> ExportConfig:
    return ExportConfig(Path("checkpoint"), Path("repository"), **changed)  # type: ignore[arg-type]


def test_the_model_has_the_contract() -> None:
    model = model_config(config(max_batch_size=4, queue_delay_us=7, max_queue_size=5, queue_timeout_ms=9))
    assert (model.name, model.backend, model.max_batch_size) == ("llm", "python", 4)
    assert model.model_transaction_policy.decoupled
    assert model.version_policy.latest.num_versions == 1
    assert model.dynamic_batching.max_queue_delay_microseconds == 7
    policy = model.dynamic_batching.default_queue_policy
    assert policy.timeout_action == pb.ModelQueuePolicy.REJECT
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (5, 9000)
    assert policy.allow_timeout_override

    # The table of DESIGN section 2, written out again.
    expected = {
        "text_input": ("TYPE_STRING", 1),
        "messages": ("TYPE_STRING", 1),
        "input_ids": ("TYPE_INT32", -1),
        "stream": ("TYPE_BOOL", 1),
        "max_tokens": ("TYPE_INT32", 1),
        "min_tokens": ("TYPE_INT32", 1),
        "temperature": ("TYPE_FP32", 1),
        "top_p": ("TYPE_FP32", 1),
        "min_p": ("TYPE_FP32", 1),
        "top_k": ("TYPE_INT32", 1),
        "repetition_penalty": ("TYPE_FP32", 1),
        "presence_penalty": ("TYPE_FP32", 1),
        "frequency_penalty": ("TYPE_FP32", 1),
        "seed": ("TYPE_UINT64", 1),
        "stop_words": ("TYPE_STRING", -1),
        "ignore_eos": ("TYPE_BOOL", 1),
        "return_log_probs": ("TYPE_BOOL", 1),
        "sampling_parameters": ("TYPE_STRING", 1),
    }
    found = {one.name: (pb.DataType.Name(one.data_type), *one.dims) for one in model.input}
    assert found == expected
    assert all(one.optional for one in model.input)
    assert {one.name for one in model.input if one.allow_ragged_batch} == {"input_ids", "stop_words"}
    assert {one.name: (pb.DataType.Name(one.data_type), *one.dims) for one in model.output} == {
        "text_output": ("TYPE_STRING", 1),
        "output_ids": ("TYPE_INT32", -1),
        "log_probs": ("TYPE_FP32", -1),
        "finish_reason": ("TYPE_STRING", 1),
        "prompt_tokens": ("TYPE_INT32", 1),
        "completion_tokens": ("TYPE_INT32", 1),
        "seed": ("TYPE_UINT64", 1),
    }


def test_the_infer_model_is_unary_and_names_its_target() -> None:
    model = infer_model_config(config(name="mine"))
    assert model.name == "mine_infer"
    assert not model.model_transaction_policy.decoupled
    assert model.parameters[TARGET_MODEL].string_value == "mine"
    assert "stream" not in {one.name for one in model.input}
    assert model.output == model_config(config()).output
    assert model.HasField("dynamic_batching")


@pytest.mark.parametrize(
    ("device", "device_map", "kind"),
    [
        ("auto", "none", "KIND_AUTO"),
        ("cpu", "none", "KIND_CPU"),
        ("gpu", "none", "KIND_GPU"),
        ("auto", "auto", "KIND_MODEL"),  # spread over several GPUs: Triton must bind it to none
        ("gpu", "auto", "KIND_MODEL"),
    ],
)
def test_the_instance_group_follows_device_and_instances(device: str, device_map: str, kind: str) -> None:
    (group,) = model_config(config(device=device, device_map=device_map, instances=3)).instance_group
    assert (pb.ModelInstanceGroup.Kind.Name(group.kind), group.count) == (kind, 3)


def test_rendering_and_parsing_give_the_same_config() -> None:
    model = model_config(config())
    assert parse(render(model), "config.pbtxt") == model


def test_a_change_names_each_field_and_both_values() -> None:
    changed = differences(model_config(config()), model_config(config(max_batch_size=16, instances=2)))
    assert changed == ["instance_group[engine].count: 1 -> 2", "max_batch_size: 8 -> 16"]
    existing = model_config(config())
    del existing.input[0]
    assert differences(existing, model_config(config())) != []


def test_what_someone_added_beside_our_fields_is_left_alone() -> None:
    existing = model_config(config())
    existing.model_warmup.add().name = "warm"
    assert differences(existing, model_config(config())) == []


def test_a_value_that_does_not_fit_names_its_field() -> None:
    with pytest.raises(ExportError, match=r"field ModelConfig.max_batch_size cannot be 4294967296"):
        model_config(config(max_batch_size=2**32))


def test_a_config_that_is_no_protobuf_is_named() -> None:
    with pytest.raises(ExportError, match=r"llm/config.pbtxt is not a Triton model config: .*max_batch"):
        parse("max_batch: 8", "llm/config.pbtxt")


@pytest.mark.parametrize(
    "field", ["slots", "max_batch_size", "instances", "version", "max_context", "threads"]
)
def test_zero_is_refused_by_name(field: str) -> None:
    with pytest.raises(ConfigError, match=rf"{field} is 0; accepted: at least 1"):
        config(**{field: 0})


def test_preferred_batch_sizes_are_the_batchers() -> None:
    model = model_config(config(preferred_batch_sizes=[2, 8]))
    assert list(model.dynamic_batching.preferred_batch_size) == [2, 8]
    assert not model_config(config()).dynamic_batching.preferred_batch_size
    with pytest.raises(ConfigError, match="preferred_batch_sizes: 9 is not between 1 and max_batch_size, 8"):
        config(preferred_batch_sizes=[9])


@pytest.mark.parametrize("field", ["queue_delay_us", "max_queue_size", "queue_timeout_ms"])
def test_negative_is_refused_by_name(field: str) -> None:
    with pytest.raises(ConfigError, match=rf"{field} is -1; accepted: at least 0"):
        config(**{field: -1})


@pytest.mark.parametrize("name", ["", "../llm", ".llm", "a b"])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name is "):
        config(name=name)


def test_serve_config_wants_different_ports() -> None:
    with pytest.raises(ConfigError, match="http_port, grpc_port and metrics_port are 8000, 8000 and 8002"):
        ServeConfig(Path("repository"), grpc_port=8000)
    with pytest.raises(ConfigError, match="http_port is 70000; accepted: 0 to 65535"):
        ServeConfig(Path("repository"), http_port=70000)
