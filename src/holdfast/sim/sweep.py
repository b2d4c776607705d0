"""Many runs, on the processes of one machine or of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from holdfast.core.results import RunResult
from holdfast.errors import ConfigError
from holdfast.sim.plan import RunPlan

__all__ = ["sweep"]


def sweep(
    plans: Sequence[RunPlan],
    worker: Callable[[RunPlan], RunResult],
    *,
    num_jobs: int = 1,
    on_ray: bool = False,
) -> Iterator[tuple[int, RunResult]]:
    """Run all plans; yields each result with its plan's index as soon as it is there.

    Args:
        plans: The longest first keeps processes busy to the end.
        worker: Makes a result of a plan; importable in other processes.
        num_jobs: Processes at once, -1 for as many as there are cores; 1 runs in this one.
        on_ray: Whether the processes are those of the Ray cluster that this one is connected to,
            or starts.

    Raises:
        ConfigError: joblib, or Ray where it is asked for, is not installed.
        HoldfastError: As the worker raises it; the remaining runs are abandoned.
    """
    if num_jobs == 1 and not on_ray:
        for index, plan in enumerate(plans):
            yield index, worker(plan)
        return
    try:
        from joblib import Parallel, delayed, parallel_config
    except ImportError as error:
        raise ConfigError("--jobs needs joblib", hint="pip install 'holdfast[sim]'") from error
    if on_ray:
        _register_ray()

    def numbered(index: int, plan: RunPlan) -> tuple[int, RunResult]:
        return index, worker(plan)

    with parallel_config(backend="ray" if on_ray else "loky", n_jobs=num_jobs):
        run = Parallel(return_as="generator_unordered", batch_size=1)
        yield from run(delayed(numbered)(index, plan) for index, plan in enumerate(plans))


def _register_ray() -> None:
    try:
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise ConfigError("--ray needs Ray", hint="pip install 'holdfast[ray]'") from error
    register_ray()
