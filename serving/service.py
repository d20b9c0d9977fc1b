"""The BentoML service: it answers batches from the newest release of every tenant.

Started by `python -m serving serve`.
"""

import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import bentoml
from _bentoml_sdk import Service

from configs import logging as logs
from configs import memory
from configs.history import HistorySettings
from configs.serving import ServingSettings
from configs.settings import PathSettings
from configs.spans import SpanSettings, recording
from configs.state_settings import StateSettings
from serving.answer_cache import AnswerCache
from serving.application import BatchApplication, Receive, Scope, Send
from serving.contracts.releases import StoreListing
from serving.release import read_store, release_size
from serving.release_cache import ReleaseCache

if TYPE_CHECKING:
    from serving.predictor import Predictor

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

PROBES = ("/livez", "/readyz", "/healthz")
"""The only paths that BentoML answers. It asks for no secret, and would describe the service to everybody."""
application = BatchApplication()


class DirectService(Service[Any]):
    """A BentoML service whose batches pass none of BentoML's middleware, which takes longer than the models.

    Tracing, timeout and context are of no use to them: each query carries its own trace id, and the client has the
    deadline. Probes and lifespan are BentoML's; on all other paths our application asks for the secret first.
    """

    def to_asgi(self, is_main: bool = True) -> Application:
        bento = super().to_asgi(is_main)

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            is_bentos = scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in PROBES)
            await (bento if is_bentos else application)(scope, receive, send)

        return respond


@bentoml.service(
    name="recommender",
    workers=1,
    traffic={"timeout": 30},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    service_class=DirectService,
)
class ModelServer:
    """Answers the API's batches. It holds the releases and nothing else, and reads no database."""

    def __init__(self) -> None:
        # Imported here, because BentoML's parent process imports this module too and needs none of it.
        from serving.watch import ReleaseWatch, load_release

        logs.configure("serving")
        # BentoML gives its loggers handlers of their own. Without them, our handler writes every line in one format.
        for name in ("bentoml", "uvicorn", "uvicorn.error", "circus"):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
        logging.getLogger("uvicorn.access").setLevel(
            logging.WARNING
        )  # the application logs each query with its trace id
        paths, history, state = PathSettings(), HistorySettings(), StateSettings()
        serving = ServingSettings().with_secret(paths)

        copies = ReleaseCache(paths.bentoml, paths.root / "release-cache", state.release_cache_bytes)

        def load(tenant_id: str, release: str) -> "Predictor":
            modules = len(sys.modules)
            with copies.opened(tenant_id, release) as folder:
                predictor = load_release(folder, tenant_id, history.max_events)
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(serving.threads)
            # Collecting among all libraries stops the answers for 0.2 s, which a mere swap may not do. A release has
            # few objects, and is freed without a collection.
            if len(sys.modules) > modules:
                memory.settle()
            return predictor

        parent = os.getppid()

        def find() -> StoreListing:
            if os.getppid() != parent:  # the parent was killed, and this worker would keep the port occupied
                os.kill(os.getpid(), signal.SIGTERM)
            listing = read_store(paths.bentoml)
            copies.delete_unlisted(listing)
            return listing

        def size(tenant_id: str, release: str) -> int:
            return release_size(paths.bentoml, tenant_id, release)

        self._watch = ReleaseWatch(find, load, serving.poll_seconds, size=size)
        cache = AnswerCache(serving.answer_cache_bytes) if serving.answer_cache_bytes else None
        application.open(self._watch, serving.authorization, cache)
        self._watch.start()
        self._open = ExitStack()
        self._open.enter_context(recording("serving", SpanSettings(), follow_callers=True))

    @bentoml.on_shutdown
    def stop(self) -> None:
        self._watch.stop()
        self._open.close()

    def __is_ready__(self) -> bool:
        """Ready once the store has been read, even if it holds no release yet."""
        return self._watch.ready
