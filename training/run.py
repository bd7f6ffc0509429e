"""``trimaran train``: one run, from JSONL rows to a sealed result, readable from top to bottom."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from transformers import set_seed

from checkpoints.atomic import write_text_atomically
from checkpoints.errors import ConfigError
from checkpoints.loading import base_manifest, describe_source, load_tokenizer
from checkpoints.manifest import Manifest
from checkpoints.prompt import PromptEncoder
from checkpoints.quiet import quiet_transformers
from checkpoints.routers import find_routers
from training.adapter import adapter_manifest, write_adapter
from training.base import check_attention, is_nf4, load_trainable_base, resolve_dtype, resolve_source
from training.callbacks.last_step import LastStep
from training.callbacks.loss_curve import LossCurve
from training.callbacks.metrics_file import MetricsFile
from training.callbacks.preemption import EXIT_CODE, Preemption
from training.callbacks.progress_bar import ProgressBar
from training.callbacks.throughput import Throughput
from training.checkpoint import write_checkpoint
from training.config import TrainConfig
from training.data.collator import PaddingCollator
from training.data.encoding import RowEncoder
from training.data.packing import PackedDataset, check_packing, pack_rows
from training.data.prepare import DataFiles, PreparedData, find_files, prepare_data
from training.data.summary import summarize
from training.ewc.setup import Fisher, ewc_inputs, measure, prepare_ewc, save
from training.gathering import gather_weights
from training.kernels import check_kernels, own_functions, put_liger_in
from training.loss_scaling import check_fp16_settings
from training.methods.registry import load_method, method_traits
from training.metrics import rows_from_history
from training.moe.autocast import autocast_experts
from training.moe.setup import prepare_moe, trained_routers
from training.optimizers import check_optimizer
from training.precision import base_dtype
from training.ranks import check_ranks, from_first, is_first, join_ranks, parallelism, strategy
from training.resume import RunDirectory
from training.start_adapter import adapter_inputs, check_adapter, load_adapter
from training.trainer import build_trainer, row_sampler
from training.zero import split_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerCallback

__all__ = ["DEFAULT_MAX_LENGTH", "check_source", "train"]

logger = logging.getLogger(__name__)

DEFAULT_MAX_LENGTH = 2048


def train(config: TrainConfig) -> Path:
    """Fine-tune and return the result: ``adapter`` in ``config.output``, or ``checkpoint`` for method full.

    A run that was cut off continues from its last complete state; see :mod:`training.resume`. On SIGTERM it
    saves its state and ends the process.

    Raises:
        SystemExit: SIGTERM came; the code is 143.
        ConfigError: a setting does not fit the model or the data, or the run diverges.
        DataError: a row cannot be used.
        CheckpointError: the base cannot be read, or ``config.output`` holds a finished run.
    """
    if config.dry_run:
        raise ConfigError("dry_run = true trains nothing; training.dry_run.dry_run makes its table")
    check_optimizer(config)
    check_attention(config.attention, config.device, config.dtype)
    check_kernels(config)
    join_ranks(config)
    directory = RunDirectory(config.output.absolute())
    from_first(lambda: directory.check(overwrite=config.overwrite))
    files = find_files(config.data)
    source = resolve_source(config.model)
    check_source(config, source)
    check_adapter(config, source)
    ewc_inputs(config)  # before the data are read, which may take hours
    config = replace(config, dtype=resolve_dtype(config.dtype, config.device))
    if is_nf4(source):
        config = replace(config, base_quantization="nf4")
    check_fp16_settings(config)
    check_ranks(config)

    from_first(lambda: directory.check_settings(config, parallelism()))
    with _threads(config.threads):
        return _train(config, directory, source, files)


def _train(config: TrainConfig, directory: RunDirectory, source: str, files: DataFiles) -> Path:
    remote = {"trust_remote_code": config.trust_remote_code, "revision": config.revision}
    tokenizer = load_tokenizer(source, **remote)  # type: ignore[arg-type]
    base_model = _load_base(config, source, config.revision)
    base = base_manifest(source, base_model, tokenizer)
    routers = trained_routers(base_model, config)
    if config.retry_out_of_memory and find_routers(base_model):
        raise ConfigError(
            "retry_out_of_memory = true, but the model is a mixture of experts: balance, capacity and "
            "statistics are of the rows of a pass, which would become fewer; lower batch_size and raise "
            "gradient_accumulation"
        )

    encoder = RowEncoder(PromptEncoder(tokenizer, base.tokens), base.tokens)
    max_length = _max_length(config, base)
    data = prepare_data(
        config.data,
        files,
        encoder=encoder,
        base=base,
        max_length=max_length,
        seed=config.seed,
        directory=directory.tokens,
    )
    inputs = {"parallel": parallelism(), **_inputs(config, base, data)}
    state = from_first(lambda: directory.begin(config, inputs))

    if state is not None and method_traits(config.method).result == "checkpoint" and strategy() == "ddp":
        # The Trainer goes by the names that weights have in the model and passes over those that checkpoints
        # store under others, as the experts of a mixture.
        del base_model
        base_model = _load_base(config, str(state), None)

    set_seed(config.seed)  # of the adapter's initial weights
    model = load_method(config.method)(base_model, getattr(config, config.method), routers)
    if isinstance(model, PeftModel):
        # Empty until the end: PEFT would look on the hub for a base that is no directory, at each state.
        model.peft_config["default"].base_model_name_or_path = ""
        if config.adapter is not None:
            load_adapter(model, config.adapter)

    moe = prepare_moe(model, config.moe, directory.experts, directory.experts_plot)
    trainable = _trainable(model)
    penalty = prepare_ewc(config, model, resumed=state is not None)
    bar, preemption = ProgressBar(), Preemption()
    callbacks: list[TrainerCallback] = [
        Throughput(),
        *(moe.callbacks if moe else []),
        *([penalty] if penalty else []),
        LastStep(),
        preemption,
        MetricsFile(directory.metrics),
        LossCurve(directory.loss_curve),
        bar,
    ]
    if config.tensorboard and is_first():
        from training.callbacks.tensorboard import tensorboard_callback

        callbacks.append(tensorboard_callback(directory.tensorboard, purge_step=_step_after(state)))
    packed = None
    if config.data.packing:
        check_packing(model, data.train.shortest(3), _pad_id(base))
        draws = row_sampler(config, data.train) if config.data.sampling.by is not None else None
        packs = pack_rows(data.train.lengths, max_length, draws)
        packed = PackedDataset(data.train, packs)
    figures = summarize(
        config.data, data, packed, max_length=max_length, batch_size=config.batch_size, seed=config.seed
    )
    if is_first():
        write_text_atomically(directory.data, json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    trainer = build_trainer(
        config,
        model,
        train=data.train if packed is None else packed,
        evaluation=data.evaluation,
        pad_id=_pad_id(base),
        decode=tokenizer.decode,
        checkpoints=directory.checkpoints,
        callbacks=callbacks,
        moe=moe,
        penalty=penalty,
    )
    logger.info(
        "training %s parameters on %d rows, the base in %s",
        f"{trainable:,}",
        len(data.train),
        config.base_quantization or base_dtype(config),
    )
    fisher = None
    try:
        example = PaddingCollator(_pad_id(base))(data.train.shortest(1))
        zero = strategy() == "zero"
        split = split_weights(config, model, trainer.args.device) if zero else nullcontext()
        with quiet_transformers(), own_functions(config, model, example), autocast_experts(model), split:
            with preemption.listening():
                trainer.train(resume_from_checkpoint=str(state) if state else None)
            if config.ewc.save and preemption.saved_step is None:
                fisher = measure(config, model, data.train, pad_id=_pad_id(base))
    finally:
        bar.close()

    if preemption.saved_step is not None:
        logger.warning(
            "ended after step %d of %d; the same command goes on from there",
            preemption.saved_step,
            trainer.state.max_steps,
        )
        raise SystemExit(EXIT_CODE)

    gather_weights(model, frozen=not isinstance(model, PeftModel))
    metrics = _metrics(trainer.state.log_history)
    from_first(
        lambda: _write_result(directory, config, source, base, model, tokenizer, data, metrics, fisher)
    )
    return directory.adapter if isinstance(model, PeftModel) else directory.checkpoint


def _write_result(
    directory: RunDirectory,
    config: TrainConfig,
    source: str,
    base: Manifest,
    model: Any,
    tokenizer: Any,
    data: PreparedData,
    metrics: dict[str, float],
    fisher: Fisher | None,
) -> None:
    directory.drop_cut_result()
    if isinstance(model, PeftModel):
        manifest = adapter_manifest(config, base, model, training_data=data.fingerprints, metrics=metrics)
        write_adapter(directory.adapter, model, tokenizer, source=source, manifest=manifest)
    else:
        write_checkpoint(
            directory.checkpoint,
            config,
            base,
            model,
            tokenizer,
            training_data=data.fingerprints,
            metrics=metrics,
        )
    result = directory.adapter if isinstance(model, PeftModel) else directory.checkpoint
    if fisher is not None:
        save(directory.ewc, config, model, fisher, result=result)
    directory.drop_tokens()


def _load_base(config: TrainConfig, source: str, revision: str | None) -> PreTrainedModel:
    model = load_trainable_base(
        source,
        dtype=base_dtype(config),
        # What is split between ranks is split on its way to the GPU: it need not fit on one.
        device=config.device if strategy() == "ddp" else "cpu",
        quantization=config.base_quantization,
        double_quantization=config.double_quantization,
        gradient_checkpointing=config.gradient_checkpointing,
        attention=config.attention,
        trust_remote_code=config.trust_remote_code,
        revision=revision,
    )
    put_liger_in(config, model)
    return model


def check_source(config: TrainConfig, source: str) -> None:
    """Refuse a base that the method cannot start from.

    Raises:
        ConfigError: an adapter, or NF4 weights that would have to be trained.
    """
    kind = describe_source(source).kind
    if kind == "adapter":
        raise ConfigError(
            f"model = {source} is an adapter; merge it first (trimaran merge) and train on the result"
        )
    if kind == "nf4" and not method_traits(config.method).takes_quantized_base:
        raise ConfigError(
            f"model = {config.model} is NF4 and method = {config.method}: they clash, because 4-bit weights "
            "cannot be trained; name the checkpoint it was quantized from, or use method = qlora"
        )


def _max_length(config: TrainConfig, base: Manifest) -> int:
    wanted = config.data.max_length
    if wanted is None:
        return min(DEFAULT_MAX_LENGTH, base.max_context)
    if wanted > base.max_context:
        raise ConfigError(
            f"data.max_length = {wanted} exceeds the context of {config.model}, {base.max_context} tokens"
        )
    return wanted


def _inputs(config: TrainConfig, base: Manifest, data: PreparedData) -> dict[str, Any]:
    return {
        "base": base.base.files or base.base.source,
        "data": [{"sha256": item.sha256, "rows": item.rows} for item in data.fingerprints],
        "eval_data": data.evaluation_hashes,
        "also_evaluated": data.also_evaluated,
        **adapter_inputs(config),
        **ewc_inputs(config),
    }


def _metrics(history: list[dict[str, Any]]) -> dict[str, float]:
    rows = rows_from_history(history)
    found = {"final_loss": "loss", "eval_loss": "eval_loss"}
    measured = {name: [row[key] for row in rows if key in row] for name, key in found.items()}
    return {name: values[-1] for name, values in measured.items() if values}


def _pad_id(base: Manifest) -> int:
    # Any id will do: attention and labels leave padding out by its position.
    return base.tokens.pad if base.tokens.pad is not None else 0


def _trainable(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _step_after(state: Path | None) -> int | None:
    return int(state.name.rpartition("-")[2]) + 1 if state is not None else None


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
