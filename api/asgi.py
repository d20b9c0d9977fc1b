"""The entry for an ASGI server: `uvicorn --factory api.asgi:application`."""

import multiprocessing
import signal

from fastapi import FastAPI

from api.app import create_app
from configs import logging, memory
from configs.parent_death import signal_on_parent_death


def application() -> FastAPI:
    """Configure logging, and create the application with settings from the environment.

    Where `API_WORKERS` starts several processes, each of them answers its open requests and ends when the process that
    started it is killed. Otherwise it would hold the port, and no new API could start.
    """
    if (parent := multiprocessing.parent_process()) is not None and parent.pid is not None:
        signal_on_parent_death(parent.pid, signal.SIGTERM)()
    logging.configure("api")
    app = create_app()
    memory.settle()
    return app
