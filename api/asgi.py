"""The entry for an ASGI server: `uvicorn --factory api.asgi:application`."""

import multiprocessing
import signal

from fastapi import FastAPI

from api.app import create_app
from configs import logging, memory
from configs.parent_death import signal_on_parent_death


def application() -> FastAPI:
    """Configure logging, and create the application with settings from the environment.

    One of several processes (`API_WORKERS`) answers what it has and ends when the process that started it is killed:
    it would hold the port, and no new API could start.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and (arm := signal_on_parent_death(int(parent.pid or 0), signal.SIGTERM)) is not None:
        arm()
    logging.configure("api")
    app = create_app()
    memory.settle()
    return app
