"""Tasks for test_jobs to run in a process of their own: `python -m tests.children`."""

import os
import time

from engine import errors
from engine.jobs import Job, Progress, answer_request


def task(request: dict) -> Job[dict]:
    yield Progress("working", 0.25)
    print("a library prints this, and it must not land among the answers")
    match request["do"]:
        case "refuse":
            raise getattr(errors, request["kind"])("a person's mistake")
        case "crash":
            raise ValueError("a bug")
        case "vanish":
            os._exit(3)
        case "wait":
            yield Progress(str(os.getpid()), 0.5)
            time.sleep(600)
    return {"process": os.getpid(), "echo": request["echo"]}


if __name__ == "__main__":
    answer_request(task)
