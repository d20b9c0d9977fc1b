"""Alembic's entry point. It runs revisions on the connection that `api.database.migrate` opened and locked."""

from alembic import context

from api.database.tables import all_tables

context.configure(
    connection=context.config.attributes["connection"], target_metadata=all_tables(), compare_server_default=False
)
with context.begin_transaction():
    context.run_migrations()
