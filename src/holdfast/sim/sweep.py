"""Executes many runs in processes of one machine or of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from holdfast.core.results import RunResult
from holdfast.errors import ConfigError, HoldfastError
from holdfast.sim.plan import RunPlan

__all__ = ["sweep"]

Worker = Callable[[RunPlan], RunResult]


def sweep(
    plans: Sequence[RunPlan], worker: Worker, *, num_jobs: int | None = 1, on_ray: bool = False
) -> Iterator[tuple[int, RunResult]]:
    """Execute all plans; yields each result with its plan's index once it is ready.

    Args:
        plans: The plans; with the longest first, processes stay busy to the end.
        worker: Turns a plan into a result; importable in other processes.
        num_jobs: Parallel runs; 1 uses this process, None one process a core.
        on_ray: Whether to use the Ray cluster of `RAY_ADDRESS`, or start one here.

    Raises:
        ConfigError: joblib, or Ray if requested, is not installed.
        HoldfastError: The worker raised it; the remaining runs are abandoned.
    """
    if on_ray:
        yield from _on_ray(plans, worker, num_jobs)
    elif num_jobs == 1:
        for index, plan in enumerate(plans):
            yield index, worker(plan)
    else:
        yield from _on_cores(plans, worker, num_jobs)


def _on_cores(
    plans: Sequence[RunPlan], worker: Worker, num_jobs: int | None
) -> Iterator[tuple[int, RunResult]]:
    try:
        from joblib import Parallel, delayed
    except ImportError as error:
        raise ConfigError("--jobs needs joblib", hint="pip install 'holdfast[sim]'") from error

    def numbered(index: int, plan: RunPlan) -> tuple[int, RunResult]:
        return index, worker(plan)

    run = Parallel(n_jobs=num_jobs or -1, return_as="generator_unordered", batch_size=1)
    yield from run(delayed(numbered)(index, plan) for index, plan in enumerate(plans))


def _on_ray(
    plans: Sequence[RunPlan], worker: Worker, num_jobs: int | None
) -> Iterator[tuple[int, RunResult]]:
    # joblib's Ray backend would return results only after all runs.
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--ray needs Ray", hint="pip install 'holdfast[ray]'") from error
    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(log_to_driver=False)
    try:
        remote = ray.remote(worker)
        unsent = enumerate(plans)
        running = {remote.remote(plan): index for index, plan in islice(unsent, num_jobs)}
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            try:
                result: RunResult = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, HoldfastError):
                    raise error.cause from error
                raise
            yield running.pop(done), result
            running.update((remote.remote(plan), index) for index, plan in islice(unsent, 1))
    finally:
        if is_ours:
            ray.shutdown()
