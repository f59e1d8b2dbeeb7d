"""Finite work: tasks that run at once within a limit, each with an outcome.

A task is a function without arguments, sync or async, or a coroutine object. All of this runs on the window that
streams run on, with its promises: bounded, cancelled cleanly, nothing lost and nothing left behind.
"""

from typing import TYPE_CHECKING

from penstock.exports import exports

if TYPE_CHECKING:
    from penstock.tasks.batch_size import BatchSizes, MeasuredSize, find_batch_size
    from penstock.tasks.executor import TaskExecutor
    from penstock.tasks.feed import AddedTask, TaskResult
    from penstock.tasks.gathering import Partition, first_success, gather, partition, race, retry_failed, settle
    from penstock.tasks.queue import TaskQueue
    from penstock.tasks.task_run import TaskRun, run_tasks
    from penstock.tasks.tokens import CancelToken
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "penstock.tasks.batch_size": ("BatchSizes", "MeasuredSize", "find_batch_size"),
            "penstock.tasks.executor": ("TaskExecutor",),
            "penstock.tasks.feed": ("AddedTask", "TaskResult"),
            "penstock.tasks.gathering": (
                "Partition",
                "first_success",
                "gather",
                "partition",
                "race",
                "retry_failed",
                "settle",
            ),
            "penstock.tasks.queue": ("TaskQueue",),
            "penstock.tasks.task_run": ("TaskRun", "run_tasks"),
            "penstock.tasks.tokens": ("CancelToken",),
        },
        {},
    )

__all__ = [
    "AddedTask",
    "BatchSizes",
    "CancelToken",
    "MeasuredSize",
    "Partition",
    "TaskExecutor",
    "TaskQueue",
    "TaskResult",
    "TaskRun",
    "find_batch_size",
    "first_success",
    "gather",
    "partition",
    "race",
    "retry_failed",
    "run_tasks",
    "settle",
]
