"""Where functions run: `engine=` takes the name of an engine, or one of these, which stages and runs can share.

The window, its order and its accounting are the same everywhere (P12).
"""

from penstock.core.errors import WorkerLost
from penstock.engines.engine import Answer, Call, Engine, Progress, answer
from penstock.engines.threads import Threads

__all__ = ["Answer", "Call", "Engine", "Progress", "Threads", "WorkerLost", "answer"]
