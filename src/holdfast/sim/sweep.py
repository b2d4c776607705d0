"""Many runs, on the processes of one machine or of a Ray cluster."""

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
    """Run all plans; yields each result with its plan's index as soon as it is there.

    Args:
        plans: The longest first keeps processes busy to the end.
        worker: Makes a result of a plan; importable in other processes.
        num_jobs: Runs at once; 1 runs in this process, None as many as there are cores.
        on_ray: Whether the processes are those of the Ray cluster that the environment names
            (`RAY_ADDRESS`), or of one started here.

    Raises:
        ConfigError: joblib, or Ray where it is asked for, is not installed.
        HoldfastError: As the worker raises it; the remaining runs are abandoned.
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
    # Not joblib's backend for Ray, which gives results only when all are there.
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
