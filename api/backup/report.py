"""The report of a restore, for the person who has to explain it to others."""

from collections.abc import Mapping

from api.backup.replay import Replayed
from api.backup.restoring import Restored
from configs.journal import ERASURES, REVOCATIONS


def restore_report(done: Restored) -> str:
    """What was restored, what was done again, and what is lost, a line each."""
    erased, *others = replayed_lines(done.replayed, done.journals)
    if not done.is_journal_given:
        erased += "; NO JOURNAL WAS GIVEN: WHO WAS ERASED AFTER THE BACKUP IS BACK"
    lines = [
        f"restored: the installation as of {done.backup_started_at}, {done.files} files, all checksums right, "
        f"database at revision {done.revision}",
        erased,
        f"lake: {done.files_followed}",
        *others,
        f"usage: units used after {done.backup_started_at} are forgiven",
        "lost: everything else written after the backup; passwords, roles, deactivations and signing keys are as they "
        "were then",
        "left out: features and logs; the next training builds features anew",
        "settings: those of the environment are in restored-environment.json, secrets included",
    ]
    return "\n".join(lines)


def replayed_lines(again: Replayed, journals: Mapping[str, str]) -> list[str]:
    """What was done again in the database, a line each: erasures, keys, sessions, subscriptions.

    journals: by name, where they came from.
    """
    tenants = f" and the tenants {', '.join(again.tenants)}" if again.tenants else ""
    return [
        f"erasures: {again.users} users erased again{tenants}; the database knew {again.known_users} others; from "
        f"{journals.get(ERASURES, 'no journal')}",
        f"API keys: {again.keys} revoked again, from {journals.get(REVOCATIONS, 'no journal')}; keys that were made "
        "later are gone",
        f"sessions: {again.sessions} ended with their refresh tokens, so everybody logs in again",
        f"subscriptions: {again.subscriptions} are read anew from Stripe once the API runs with STRIPE_API_KEY",
    ]
