"""What the demo prints once everything runs."""

import os
from collections.abc import Mapping

from configs.settings import PathSettings


def announcement(
    paths: PathSettings,
    urls: Mapping[str, str],
    values: Mapping[str, str],
    *,
    dataset: str,
    user: str,
    stripe: str,
    attached: bool,
) -> str:
    """How to reach and try the demo.

    Args:
        urls: the URL of each server, by program.
        values: the content of demo.env.
        user: a user of the data set for the example.
        stripe: the line about Stripe.
        attached: whether the demo runs in another terminal.
    """
    control = f".venv/bin/supervisorctl -c {os.path.relpath(paths.root / 'supervisord.conf')}"
    end = "It runs in another terminal." if attached else "Ctrl-C stops everything."
    return f"""
RecommendAI is running with the data set {dataset}, tenant {values["TENANT_ID"]}.

  API       {urls["api"]}/docs
  Dagster   {urls["dagster"]}
  MLflow    {urls["mlflow"]}
  serving   {urls["serving"]}
  metrics   {values["METRICS_URL"]}
  Stripe    {stripe}
  login     {values["ADMIN_EMAIL"]}  {values["ADMIN_PASSWORD"]}

Try it:

  curl -s {urls["api"]}/api/v1/recommend \\
    -H 'X-API-Key: {values["API_KEY"]}' -H 'Content-Type: application/json' \\
    -d '{{"userId": "{user}", "count": 5, "algorithm": "hybrid"}}'

All of this is in {os.path.relpath(paths.root / "demo.env")}; logs are in {os.path.relpath(paths.logs)}.
One process: {control} stop|start serving
{end}
"""
