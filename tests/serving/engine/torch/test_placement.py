"""Models larger than one device: where layers and their keys go, and that the tokens stay the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from checkpoints.loading import empty_model, load_model
from serving.engine.request import GenerationRequest, SamplingParameters
from serving.engine.torch.kv_cache import SlotCache
from serving.engine.torch.placement import cache_bytes, place_layers
from serving.engine.torch.plan import Plan
from tests.equality import assert_equal_tokens
from tests.serving.engine.engines import drive, token_ids
from tests.serving.engine.torch.architectures import make_engine, prompts, references, tiny_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("placement") / "model"
    tiny_model("qwen3").save_pretrained(folder)
    return folder


def test_layers_are_dealt_out_in_order_with_room_for_their_keys(checkpoint: Path) -> None:
    empty = empty_model(checkpoint)
    assert {values.device.type for values in empty.parameters()} == {"meta"}
    layer = sum(values.numel() * 4 for values in empty.model.layers[0].parameters())
    head = empty.lm_head.weight.numel() * 4
    # accelerate keeps one layer's room free on each, for layers that may have to pass through.
    room = {0: head + 3 * layer + 4096, 1: head + 2 * layer + 4096, "cpu": 10**9}
    placed = place_layers(empty, torch.float32, 2 * layer, dict(room))
    assert (placed["model.layers.0"], placed["model.layers.1"]) == (0, 1)
    assert "cpu" not in placed.values()
    # The same GPUs with a larger KV cache to hold: a layer has no room any more.
    assert "cpu" in place_layers(empty, torch.float32, 4 * layer, dict(room)).values()


def test_the_size_of_the_cache_is_what_is_allocated() -> None:
    for name in ("qwen3", "gpt2", "deepseek_v2", "deepseek_v3"):
        model = tiny_model(name)
        engine = make_engine(model)
        drive(engine, [GenerationRequest([5, 6], SamplingParameters(max_tokens=2))])
        layers = engine._runner.cache.layers  # type: ignore[attr-defined]
        found = sum(one.keys.nbytes + one.values.nbytes for one in layers)
        assert cache_bytes(model.config, 4, 129, torch.float32) == found  # one scratch position


def test_keys_are_kept_where_their_layer_computes() -> None:
    cache = SlotCache(2, slots=2, positions=8)
    cache.plan = Plan.decode(torch.tensor([[3], [4]]), [4, 5])
    for index, device in enumerate(("cpu", "meta")):
        states = torch.ones((2, 1, 1, 4), device=device)
        keys, _ = cache.update(states, states, index)
        assert keys.device.type == cache.layers[index].keys.device.type == device
        assert keys.shape == (2, 1, 5, 4)


def test_offloaded_layers_give_the_same_tokens(checkpoint: Path) -> None:
    torch.set_num_threads(1)
    empty = empty_model(checkpoint)
    layer = sum(values.numel() * 4 for values in empty.model.layers[0].parameters())
    head = empty.lm_head.weight.numel() * 4
    placed = place_layers(empty, torch.float32, 0, {"cpu": head + layer + 4096, "disk": 10**9})
    assert "disk" in placed.values()
    model = load_model(checkpoint, device_map=placed)
    assert any(values.device.type == "meta" for values in model.parameters())  # really not in memory
    ids = prompts(6)
    expected = references(AutoModelForCausalLM.from_pretrained(checkpoint).eval(), ids, 16)
    engine = make_engine(model, prepare=True)
    requests = [GenerationRequest(item, SamplingParameters(max_tokens=16)) for item in ids]
    found = drive(engine, requests, arrives_at=lambda index: 2 * index)
    assert_equal_tokens(expected, [token_ids(events) for events in found])
