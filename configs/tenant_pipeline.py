"""What a tenant's pipeline may differ in: budgets, schedules, thresholds, the metric that decides, floors and alerts.

`GET` and `PUT /api/settings/pipeline` show and replace these settings, and the pipeline reads them at each step. They
are camelCase in JSON. The default of each field is what a tenant without any settings gets. Every number, list and text
has a bound, since an administrator of any tenant may send them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StrictBool
from pydantic.alias_generators import to_camel

MAX_FAMILIES = 32
MAX_EMAILS = 5
MAX_WEBHOOK_URL = 2_048
MIN_SECRET, MAX_SECRET = 16, 128
"""Characters of the secret that webhooks are signed with."""
MAX_FIT_SECONDS = 21_600

DecidingMetric = Literal["ndcg@10", "ndcg@20", "recall@10", "recall@20", "hit_rate@10", "mrr", "auc"]
"""A metric of `training.evaluation.metrics`; larger is better in all of them."""
FloorModel = Literal["random", "popularity", "item-knn"]
AlertEvent = Literal["drift", "promotion", "run_failed", "rollback"]
ALERT_EVENTS: tuple[AlertEvent, ...] = ("drift", "promotion", "run_failed", "rollback")


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _printable(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("a secret consists of printable ASCII characters")
    return secret


def _each_once(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


_Int = Annotated[int, Field(strict=True), BeforeValidator(_whole)]
_Float = Annotated[float, Field(strict=True)]
_Share = Annotated[float, Field(strict=True, ge=0, le=1)]
_Family = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}"
_Email = Annotated[str, Field(max_length=254, pattern=rf"^{_ATOM}(\.{_ATOM})*@{_LABEL}(\.{_LABEL})*$")]
"""An address in the form of RFC 5321 without quotes: ASCII without white space, so that it ends no header of a mail."""
_WebhookUrl = Annotated[
    str,
    Field(
        max_length=MAX_WEBHOOK_URL,
        pattern=r"^https?://([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?([/?][!-~]*)?$",
    ),
]


class SettingsGroup(BaseModel):
    """Base of the groups: frozen, without unknown fields, camelCase outside. An error never repeats what was sent."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


class TenantSearch(SettingsGroup):
    """The search for hyper-parameters."""

    enabled: StrictBool = True
    minutes: Annotated[_Int, Field(ge=1, le=1_440)] = Field(default=20, description="A family's budget in each search")
    every_days: Annotated[_Int, Field(ge=1, le=90)] = Field(default=7, description="Days between two searches")


class TenantTraining(SettingsGroup):
    """When models are trained, and for how long. null: as the installation is set."""

    retrain_after: Annotated[_Int, Field(ge=1, le=100_000_000)] | None = Field(
        default=None, description="New interactions that start a retraining", examples=[5_000]
    )
    nightly: StrictBool = Field(default=True, description="Whether the nightly retraining includes the tenant")
    seconds: Annotated[_Float, Field(ge=1, le=MAX_FIT_SECONDS)] | None = Field(
        default=None, description="Most that the fit of a family takes", examples=[600]
    )


class FamilyFloor(SettingsGroup):
    """A new version is refused where it is shown to reach less than `factor` times what `model` reaches."""

    model: FloorModel | None = Field(default=None, description="null: no floor", examples=["popularity"])
    factor: Annotated[_Float, Field(gt=0, le=100)] = 1.0


class PromotionRails(SettingsGroup):
    """What blocks a promotion whatever the metric says. null: no such bound."""

    min_coverage_share: _Share = Field(default=0.5, description="Least share of the champion's catalogue coverage")
    max_cold_drop: _Share = Field(
        default=0.5, description="Most that the metric may fall, relatively, for cold users and for cold items"
    )
    max_query_ms: Annotated[_Float, Field(gt=0, le=60_000)] | None = Field(
        default=None, description="Most that one query may take", examples=[50]
    )
    max_model_mb: Annotated[_Float, Field(gt=0, le=1_000_000)] | None = Field(
        default=None, description="Largest model in megabytes", examples=[500]
    )


class TenantPromotion(SettingsGroup):
    """When a new version takes the place of the champion."""

    metric: DecidingMetric = "ndcg@10"
    max_drop: _Share = Field(
        default=0.03, description="A new version whose mean is lower than the champion's by more than this is refused"
    )
    undecided: Literal["promote", "keep"] = Field(
        default="promote", description="What follows where there are too few users to tell the two apart"
    )
    min_users: Annotated[_Int, Field(ge=1, le=1_000_000)] = Field(
        default=10, description="Evaluated users that a comparison needs"
    )
    max_relative_error: Annotated[_Float, Field(gt=0, le=1)] = Field(
        default=0.025, description="Paired standard error, relative to the champion, above which nothing is decided"
    )
    floors: Annotated[dict[_Family, FamilyFloor], Field(max_length=MAX_FAMILIES)] = Field(
        default_factory=dict,
        description="By family, floors in place of those of the installation; `default` is that of all other families",
        examples=[{"hybrid": {"model": "item-knn", "factor": 1.0}}],
    )
    rails: PromotionRails = PromotionRails()


class TenantDrift(SettingsGroup):
    """When changes in the data are reported, and what follows."""

    enabled: StrictBool = True
    psi: Annotated[_Float, Field(ge=0.01, le=10)] = Field(
        default=0.1,
        description="Population stability index below which no shift is reported; above it, one that the tenant's own "
        "past does not explain is",
    )
    volume_drop: Annotated[_Float, Field(ge=0.01, le=1)] = Field(
        default=0.4, description="Fall of the volume against the same weekday that is reported"
    )
    unknown_items: _Share = Field(default=0.2, description="Share of events with unknown items that is reported")
    parity: StrictBool = Field(default=True, description="Compare the histories of training with those of requests")
    action: Literal["alert", "retrain", "stop_publishing"] = "alert"


class AlertChannels(SettingsGroup):
    """Where alerts go: to a webhook, which is signed, and by mail. Without an address there are none."""

    webhook_url: _WebhookUrl | None = Field(
        default=None,
        description="A server on the internet that takes a POST of each alert",
        examples=["https://ops.example.com/alerts"],
    )
    emails: Annotated[tuple[_Email, ...], Field(max_length=MAX_EMAILS), AfterValidator(_each_once)] = Field(
        default=(), examples=[["ops@example.com"]]
    )
    events: Annotated[tuple[AlertEvent, ...], Field(max_length=len(ALERT_EVENTS)), AfterValidator(_each_once)] = Field(
        default=ALERT_EVENTS, description="What is reported"
    )


class TenantAlerts(AlertChannels):
    """The channels, with the secret of the webhook, which no response shows."""

    webhook_secret: (
        Annotated[
            SecretStr,
            Field(min_length=MIN_SECRET, max_length=MAX_SECRET, json_schema_extra={"writeOnly": True}),
            AfterValidator(_printable),
        ]
        | None
    ) = Field(
        default=None,
        exclude=True,
        description="Signs the webhook's bodies. Left out or null: the present one stays; where there is none, one is "
        "made and shown in this response alone",
        examples=["a secret of 16 characters or more"],
    )
    webhook_secret_set: StrictBool | None = Field(
        default=None, exclude=True, description="Ignored, so that a response may be sent back with changes"
    )


class TenantPipeline(SettingsGroup):
    """All settings of one tenant's pipeline."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "search": {"minutes": 30},
                    "promotion": {"maxDrop": 0.02, "undecided": "keep"},
                    "alerts": {"emails": ["ops@example.com"], "events": ["drift", "run_failed"]},
                }
            ]
        }
    )

    search: TenantSearch = TenantSearch()
    training: TenantTraining = TenantTraining()
    promotion: TenantPromotion = TenantPromotion()
    drift: TenantDrift = TenantDrift()
    alerts: TenantAlerts = TenantAlerts()

    @classmethod
    def stored(cls, settings: Mapping[str, Any]) -> Self:
        """Settings that were valid when they were stored. Those that a later version added are left out."""
        return cls.model_validate(settings, extra="ignore")
