"""The model server, as its callers and the server itself are set up."""

from typing import Self

from pydantic import Field, SecretStr

from configs.files import kept_secret
from configs.settings import PathSettings, Settings


class ServingSettings(Settings):
    """How the API reaches the model server, and how the model server watches for releases."""

    url: str = Field(
        default="http://127.0.0.1:3000", alias="SERVING_URL", description="where the API reaches the model server"
    )
    patience_seconds: float = Field(
        default=0.14,
        alias="SERVING_PATIENCE_SECONDS",
        gt=0,
        description="that a caller waits for the models before popularity answers, which takes up to 0.1 s more",
    )
    max_patience_seconds: float = Field(
        default=0.0,
        alias="SERVING_MAX_PATIENCE_SECONDS",
        ge=0,
        description="up to which patience rises where the model server has lately needed more than a third of it; by "
        "default it does not rise",
    )
    timeout_seconds: float = Field(
        default=2.0,
        alias="SERVING_TIMEOUT_SECONDS",
        gt=0,
        description="after which a call that no caller waits for any more is given up",
    )
    poll_seconds: float = Field(
        default=1.0, alias="SERVING_POLL_SECONDS", gt=0, description="between two looks for new releases"
    )
    threads: int = Field(default=1, alias="SERVING_THREADS", ge=1, description="of linear algebra in the model server")
    answer_cache_bytes: int = Field(
        default=64 * 1024 * 1024,
        alias="SERVING_ANSWER_CACHE_BYTES",
        ge=0,
        description="of answers that the model server keeps for those who ask the same again; 0: none",
    )
    secret: SecretStr | None = Field(
        default=None,
        alias="SERVING_SECRET",
        min_length=16,
        description="that the API sends and the model server asks for; None: that of the state folder",
    )

    def with_secret(self, paths: PathSettings) -> Self:
        """These settings with a secret: their own, or that of the state folder, which is made where it is missing."""
        return (
            self
            if self.secret
            else self.model_copy(update={"secret": SecretStr(kept_secret(paths.serving_secret_file))})
        )

    @property
    def authorization(self) -> str | None:
        """The value of the header that carries the secret; None without a secret."""
        return f"Bearer {self.secret.get_secret_value()}" if self.secret else None
