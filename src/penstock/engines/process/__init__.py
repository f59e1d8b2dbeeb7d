"""The engine of processes: workers that are started, fed, watched, stopped and replaced, without a thread for any.

`processes_engine` is the engine. `worker_process` is one worker as the driver sees it, `worker` the program that it
runs. Between them: `messages`, `page` (shared memory), `crossing` (values), `remote_errors` (exceptions). A
worker imports no more of penstock than the last five: its start is what a replacement costs.
"""
