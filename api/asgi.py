"""The entry for an ASGI server: `uvicorn --factory api.asgi:application`."""

from fastapi import FastAPI

from api.app import create_app
from configs import logging, memory


def application() -> FastAPI:
    """Configure logging, and create the application with settings from the environment."""
    logging.configure("api")
    app = create_app()
    memory.settle()
    return app
