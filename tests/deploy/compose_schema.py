"""What `docker compose` accepts, as far as our file uses it: names of keys, and the kinds of their values.

From the Compose Specification. A key that is not here is a spelling mistake until somebody adds it.
"""

from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT, "uniqueItems": True}
WORDS = {"type": "array", "items": TEXT, "minItems": 1}
DURATION = {"type": "string", "pattern": r"^(\d+(ms|s|m|h))+$"}
NAMES = {"type": "string", "pattern": r"^[a-z][a-z0-9-]*$"}


def _closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _named(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "propertyNames": NAMES, "additionalProperties": value}


SERVICE = _closed(
    image={"type": "string", "pattern": r"^[a-z/-]+:[\w.-]+$"},
    build=_closed(context=TEXT, dockerfile=TEXT),
    profiles={**TEXTS, "contains": {"const": "all"}},
    command=WORDS,
    env_file=TEXTS,
    environment={"type": "object", "additionalProperties": TEXT},
    restart={"enum": ["no", "always", "on-failure", "unless-stopped"]},
    read_only={"type": "boolean"},
    tmpfs=TEXTS,
    volumes=TEXTS,
    ports={"type": "array", "items": {"type": "string", "pattern": r"^\d+:\d+$"}},
    networks={"anyOf": [TEXTS, _named(_closed(ipv4_address=TEXT))]},
    cap_drop=TEXTS,
    cap_add=TEXTS,
    security_opt=TEXTS,
    pids_limit={"type": "integer"},
    shm_size=TEXT,
    stop_grace_period=DURATION,
    depends_on=_named(
        {
            **_closed(
                condition={"enum": ["service_started", "service_healthy", "service_completed_successfully"]},
                required={"type": "boolean"},
            ),
            "required": ["condition"],
        }
    ),
    healthcheck=_closed(
        test={**WORDS, "prefixItems": [{"const": "CMD"}]},
        interval=DURATION,
        timeout=DURATION,
        start_period=DURATION,
        retries={"type": "integer", "minimum": 1},
        disable={"type": "boolean"},
    ),
)
SERVICE["required"] = ["image", "profiles", "restart"]

COMPOSE = {
    "type": "object",
    "properties": {
        "name": NAMES,
        "services": _named(SERVICE),
        "volumes": _named(_closed()),
        "networks": _named(
            _closed(
                internal={"type": "boolean"},
                ipam=_closed(config={"type": "array", "items": _closed(subnet=TEXT)}),
            )
        ),
    },
    "patternProperties": {"^x-": {"type": "object"}},
    "additionalProperties": False,
    "required": ["services"],
}
