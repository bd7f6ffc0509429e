"""All peers there are, by key, in the order of the table."""

from __future__ import annotations

from benchmarks.serving_peers.inprocess import InProcess
from benchmarks.serving_peers.llamacpp import LlamaCpp
from benchmarks.serving_peers.openvino_genai import OpenVinoGenAI
from benchmarks.serving_peers.peer import Peer
from benchmarks.serving_peers.transformers_continuous import TransformersContinuous
from benchmarks.serving_peers.transformers_static import TransformersStatic
from benchmarks.serving_peers.triton import TritonGrpc
from benchmarks.serving_peers.triton_http import TritonHttp
from benchmarks.serving_peers.vllm import Vllm
from benchmarks.setting import Setting

__all__ = ["all_peers", "default_keys", "quick_keys"]


def all_peers(setting: Setting) -> dict[str, Peer]:
    """Return key -> peer, nothing installed or started yet."""
    precision = setting.precision
    ours = [
        ("torch", precision),
        ("openvino", "fp16"),
        ("openvino", "int8"),
        ("onnx", "fp32"),
        ("onnx", "int8"),
        ("torch", "int8"),
        ("torch", "nf4"),
    ]
    peers: list[Peer] = [
        TransformersStatic(setting, precision),
        TransformersStatic(setting, "nf4"),
        TransformersContinuous(setting, precision),
        LlamaCpp(setting, "bf16"),
        LlamaCpp(setting, "q8_0"),
        Vllm(setting, precision),
        OpenVinoGenAI(setting, "fp16"),
        OpenVinoGenAI(setting, "int8"),
        *(InProcess(setting, weights, engine) for engine, weights in ours),
        *(TritonGrpc(setting, weights, engine) for engine, weights in ours),
        *(TritonHttp(setting, weights, engine) for engine, weights in ours),
    ]
    if precision != "bf16":
        peers += [Vllm(setting, "bf16")]
    return {peer.key: peer for peer in peers}


def default_keys(setting: Setting) -> list[str]:
    """Return what a full run measures: not every way to every engine, and no emulated bf16."""
    left_out = [
        "triton-http-openvino-fp16",
        "triton-http-onnx",
        "triton-http-torch-int8",
        "triton-http-torch-nf4",
        "triton-onnx-fp32",
        "inprocess-onnx-fp32",
        "inprocess-torch-nf4",
    ]
    if setting.precision != "bf16":
        left_out.append("vllm-bf16")
    return [key for key in all_peers(setting) if not key.startswith(tuple(left_out))]


def quick_keys(setting: Setting) -> list[str]:
    """Return what a quick look measures: nothing that has to be built, each engine of ours once."""
    precision = setting.precision
    return [
        f"transformers-static-{precision}",
        f"transformers-continuous-{precision}",
        "openvino-genai-int8",
        f"inprocess-torch-{precision}",
        f"triton-torch-{precision}",
        "inprocess-openvino-int8",
        "triton-openvino-int8",
        "triton-http-openvino-int8",
    ]
