"""The life of a run: it is locked, started or resumed, trained, and always left with a status that says what happened."""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

import torch

from altprop.code_identity import code_differences, code_identity
from altprop.faults import DISK, describe, system_error
from altprop.files import read_json
from altprop.problems import ConfigError, RunFailed, first_line_of
from altprop.program import command
from altprop.tracking.base import RunInfo, Status, Tracker
from altprop.tracking.fanout import Trackers
from altprop.tracking.metadata import write_metadata
from altprop.training.ancestry import changed_sources, record_ancestry
from altprop.training.assembly import Assembly, assemble, left_out_line, load_data
from altprop.training.checkpoint import CheckpointStore
from altprop.training.cost import watch_memory
from altprop.training.extend import check_parent, take_over
from altprop.training.logs import log_to_file
from altprop.training.loop import Loop
from altprop.training.parts import Parts
from altprop.training.processes import Processes, check_together, process_group, wait_for_all
from altprop.training.profiling import Profiler
from altprop.training.progress import Progress
from altprop.training.rundir import RunDirectory
from altprop.training.saving import Saver
from altprop.training.signals import Stopped, StopRequests
from altprop.training.single_images import MESSAGE

log = logging.getLogger(__name__)

PROGRESS = ("step", "total_steps", "epoch", "total_epochs", "seconds", "last", "best", "parameters", "flops", "peak_memory")
"""Entries of ``status.json`` that stay when a run ends without finishing its step."""
REQUEUE_SECONDS = 60.0
"""How long the other processes wait for the first one to requeue the job, which ends them."""


def train(parts: Parts) -> Mapping[str, Any]:
    """Train the run described by ``parts``, resume it, or say that it is done. Returns its final status.

    Raises:
        ConfigError: For a mistake that only shows with the model or the data, before anything is written or cleared.
        RunFailed: For a failure that one line can explain.
        SystemExit: With 128 + the signal's number after a request to stop.
    """
    directory = RunDirectory(parts.directory, parts.name, parts.key)
    if (parts.resume or directory.started_over) and directory.finished:
        return _already_done(directory, parts)
    requests = StopRequests()
    try:
        with requests, process_group(parts.settings.device) as processes:
            check_together(parts.algorithm, processes)
            if not processes.first:
                logging.getLogger("altprop").setLevel(logging.ERROR)  # the first process reports for all
                return _train_or_explain(parts, directory, processes, requests)
            with directory.lock(), log_to_file(directory.log):
                return _train_or_explain(parts, directory, processes, requests)
    except Stopped as stop:  # before the run started
        _leave(stop, directory, requests)


def _train_or_explain(parts: Parts, directory: RunDirectory, processes: Processes, requests: StopRequests) -> Mapping[str, Any]:
    try:
        return _train(parts, directory, processes, requests)
    except SystemExit:
        raise
    except BaseException as error:
        if (stop := requests.stop_behind(error)) is not None:
            if processes.first and (directory.read_status() or {}).get("pid") == os.getpid():
                _write_end(parts, directory, "preempted" if requests.preempted else "interrupted")
            _leave(stop, directory, requests, processes.rank)
        explained = _explain(error, directory)
        if processes.first and (directory.started or not isinstance(explained, ConfigError)):
            _write_end(
                parts, directory, "failed", error=f"{type(explained).__name__}: {first_line_of(explained)}", failed_at=time.time()
            )
        if explained is error:
            raise
        raise explained from error


def _train(parts: Parts, directory: RunDirectory, processes: Processes, requests: StopRequests) -> Mapping[str, Any]:
    # First, because it finds mistakes that only show with the model or the data, before anything is written or cleared.
    if parts.extends is not None and (not parts.resume or CheckpointStore(directory.checkpoints, directory.key).is_empty()):
        check_parent(parts.extends)
    starts = bool(parts.sources) and _starts(parts, directory)
    run = assemble(parts, rank=processes.rank, world_size=processes.world_size, start=starts, to_train=True)
    if processes.first:
        if parts.algorithm.weights.left_out:
            log.warning(left_out_line(parts.algorithm.weights))
        if not (parts.resume or directory.started_over):
            directory.clear()
        elif directory.read_status() is None and (directory.path / "status.json").exists():
            log.warning("%s: status.json is damaged and is written anew", directory.path)
        directory.point_latest(parts.outputs)
        directory.write_config(parts.config_text)
        if starts:
            record_ancestry(parts.sources, directory.path, parts.outputs)
        if parts.extends is not None:
            take_over(parts.extends, directory, parts.config_text)
    wait_for_all(processes.world_size)  # until the first process has cleared the directory
    parameters = sum(parameter.numel() for parameter in run.algorithm.model.parameters())
    saver = Saver(directory, run.context, run.plan, parts.config_text, keep=parts.settings.keep, parameters=parameters)
    progress = saver.restore(run.algorithm)
    if processes.first:
        if progress.step > 0:
            _warn_of_differences(directory, parts, "resumed with other conditions")
        write_metadata(directory.path, run.context.device, parts.config)
    watch_memory(run.context.device)
    late = [epoch for epoch in parts.settings.keep_epochs if epoch > run.plan.total_epochs]
    if late and processes.first:
        log.warning("trainer.keep_epochs: the run ends after %d epochs, before %s", run.plan.total_epochs, late)
    log.debug("%s: %d parameters on %s", parts.name, parameters, run.context.device)
    if parts.settings.save_initial and progress.step == 0:
        saver.save_initial(run.algorithm, progress)
    tracker: Tracker = Trackers(parts.trackers, directory.path) if processes.first else Tracker()
    tracker.start(_run_info(parts, run, progress))
    if isinstance(tracker, Trackers):
        tracker.watch(run.algorithm.model)
    status: Status = "failed"
    try:
        saver.status("running", progress)
        with requests.deferred():
            profiler = Profiler(parts.settings.profile_steps, directory.path / "profile")
            loop = Loop(run.algorithm, run.data, parts.settings, run.plan, progress, tracker, saver, profiler, run.costs)
            loop.run(requests)
            if requests.received is not None:
                saver.status("preempted" if requests.preempted else "interrupted", progress)
        if parts.settings.figures and processes.first:
            from altprop.training.artifacts import draw_figures  # imports Matplotlib

            draw_figures(_with_all_data(run, parts), directory, parts.settings, tracker)
        status = "done"
        saver.status(status, progress, **_early_stop(parts, progress))
        log.debug("done after %d steps", progress.step)
    except Stopped:
        status = "preempted" if requests.preempted else "interrupted"
        if requests.preempted:
            tracker.preempting()
        raise
    finally:
        try:
            run.algorithm.close()
        finally:
            tracker.finish(status, _summary(progress))
    return directory.read_status() or {}


def _starts(parts: Parts, directory: RunDirectory) -> bool:
    """Whether the run begins now, instead of resuming from a checkpoint or taking over a shorter run."""
    if parts.extends is not None:
        return False
    if not (parts.resume or directory.started_over):
        return True
    return CheckpointStore(directory.checkpoints, directory.key).is_empty()


def _early_stop(parts: Parts, progress: Progress) -> dict[str, str]:
    """What ``status.json`` says about early stopping, which is also logged; empty if the run reached its planned end."""
    rule = parts.settings.early_stopping
    if not progress.stopped_early or rule is None:
        return {}
    text = f"stopped early at epoch {progress.last['epoch']:g}: {rule.metric}"
    log.info(text)
    return {"stopped_early": text}


def _leave(stop: Stopped, directory: RunDirectory, requests: StopRequests, rank: int = 0) -> NoReturn:
    """Leave after a signal: let the cluster requeue the job, and say how to resume."""
    if requests.preempted:
        requests.hand_over()  # in the first process, submitit's handler requeues the job and does not return
        if rank > 0:
            time.sleep(REQUEUE_SECONDS)  # if this process left now, SLURM would end the first one before it has requeued the job
    name = signal.Signals(stop.number).name
    status = directory.read_status()
    if status is None:
        log.warning("stopped by %s before training began", name)
    else:
        saved = "everything is saved" if stop.saved else "the newest checkpoint is complete"
        step = status.get("step", 0)
        log.warning(
            "stopped by %s after step %d; %s. Resume with: %s run=%s", name, step, saved, command("train"), directory.path
        )
    raise SystemExit(128 + stop.number)


def _with_all_data(run: Assembly, parts: Parts) -> Assembly:
    """``run`` with all samples of its data instead of this process's share."""
    if run.context.world_size == 1:
        return run
    return replace(run, data=load_data(parts, run.context.device))


def _run_info(parts: Parts, run: Assembly, progress: Progress) -> RunInfo:
    return RunInfo(
        key=parts.key,
        name=parts.name,
        directory=parts.directory,
        config=parts.config,
        seed=parts.seed,
        total_epochs=run.plan.total_epochs,
        steps_per_epoch=run.plan.steps_per_epoch,
        resumed=progress.step > 0,
        start_step=progress.step,
        records=progress.records,
        group=parts.group,
        tags=parts.tags,
    )


def _summary(progress: Progress) -> dict[str, Any]:
    best = {f"best/{name}": value for name, value in progress.best.items()}
    return {**progress.last, **best, "step": progress.step}  # a stopped run has trained on since its last record


def _already_done(directory: RunDirectory, parts: Parts) -> Mapping[str, Any]:
    status = directory.read_status() or {}
    accuracy = status.get("last", {}).get("test/accuracy")
    shown = "" if accuracy is None else f", test accuracy {accuracy:.2f} %"
    log.info("this run is done already%s: %s (resume=false starts it over)", shown, directory.path)
    _warn_of_differences(directory, parts, "made under other conditions")
    return status


def _warn_of_differences(directory: RunDirectory, parts: Parts, event: str) -> None:
    """Print one line if the code or the number of threads differs from what the run recorded last."""
    meta = read_json(directory.path / "meta.json")
    if not isinstance(meta, dict):
        return
    before = meta.get("code")
    differences = code_differences(before, code_identity(parts.config)) if isinstance(before, dict) else []
    threads = parts.settings.threads or torch.get_num_threads()
    if meta.get("device") == "cpu" and meta.get("threads") not in (None, threads):
        differences.append(f"torch used {meta['threads']} threads and has {threads}, which changes rounding")
    differences += changed_sources(parts.sources, directory.path)
    if differences:
        log.warning("this run is %s: %s; resume=false starts it over", event, "; ".join(differences))


def _explain(error: BaseException, directory: RunDirectory) -> BaseException:
    """The same failure as a RunFailed of one line, if one line can explain it."""
    if isinstance(error, (RunFailed, ConfigError)) or not isinstance(error, Exception):
        return error
    fault = system_error(error)
    if fault is not None and fault.errno == errno.ENOENT and directory.removed:
        return RunFailed(f"{directory.path} was removed while the run was training")
    if isinstance(error, ValueError) and str(error).startswith(MESSAGE):
        return RunFailed(
            "batch norm cannot normalize a mini-batch of a single image; leave out the last, smaller one of each epoch with "
            "dataset.drop_last=true, or change dataset.batch_size"
        )
    line = describe(error, directory.path)
    if line is None:
        return error
    if fault is not None and fault.errno in DISK:
        line += "; the checkpoints there are complete"
    return RunFailed(line)


def _write_end(parts: Parts, directory: RunDirectory, status: Status, **fields: Any) -> None:
    """Write how the run ended, with the progress that ``status.json`` already tells, unless the loop has written it."""
    previous = directory.read_status() or {}
    if status != "failed" and previous.get("status") != "running":
        return
    progress = {name: previous[name] for name in PROGRESS if name in previous}
    try:
        directory.require()
        directory.write_config(parts.config_text)
        directory.write_status(status, in_place_if_full=True, **progress, **fields)
    except OSError as second:  # most likely a full disk, which is the failure itself
        if str(second.filename) not in fields.get("error", ""):  # else that line says it already
            log.warning("status.json could not be written: %s", second.strerror)
    except RunFailed:  # the directory was removed, which is the failure itself
        pass
