"""The entry for an ASGI server: `uvicorn --factory api.asgi:application`."""

from fastapi import FastAPI

from api.app import create_app
from configs import logging


def application() -> FastAPI:
    """The application with its settings from the environment, and its logs configured."""
    logging.configure("api")
    return create_app()
