#!/bin/sh
# Makes the two roles (docs/installation.md) at the first start of the container: one owns the database and its tables,
# the other reads and writes rows. `python -m api migrate` grants the second its rights.
set -eu
psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname "$POSTGRES_DB" <<'SQL'
\getenv database POSTGRES_DB
\getenv owner_password OWNER_PASSWORD
\getenv application_password APPLICATION_PASSWORD
CREATE ROLE recommendai_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE recommendai LOGIN PASSWORD :'application_password';
ALTER DATABASE :"database" OWNER TO recommendai_owner;
ALTER SCHEMA public OWNER TO recommendai_owner;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
SQL
