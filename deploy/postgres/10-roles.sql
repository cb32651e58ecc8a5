-- Run once by the postgres image, as the superuser, in the database `payments`.
-- payments_owner owns the schema and migrates it; payments_app is what the service
-- is: `payments migrate` grants it what it needs, and it can alter nothing.
-- Both passwords come from the files that the container's environment names.
\getenv owner_password_file PAYMENTS_OWNER_PASSWORD_FILE
\getenv app_password_file PAYMENTS_DB_PASSWORD_FILE
\set owner_password `cat :'owner_password_file'`
\set app_password `cat :'app_password_file'`
SELECT :'owner_password' = '' OR :'app_password' = '' AS password_missing \gset
\if :password_missing
DO $$ BEGIN RAISE EXCEPTION 'a file with a password of payments_owner or payments_app cannot be read'; END $$;
\endif

-- A statement that fails is not written to the log with a password in it.
SET log_min_error_statement = panic;

-- The owner sees the rows of every merchant: it moves and dumps them.
CREATE ROLE payments_owner LOGIN PASSWORD :'owner_password' BYPASSRLS;
CREATE ROLE payments_app LOGIN PASSWORD :'app_password'
    NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;

RESET log_min_error_statement;

-- Whoever owns the database owns the schema public (pg_database_owner).
ALTER DATABASE payments OWNER TO payments_owner;
REVOKE CONNECT ON DATABASE payments FROM PUBLIC;
GRANT CONNECT ON DATABASE payments TO payments_app;
-- To see whose transaction holds back cleaning and retention: other roles' sessions are hidden else.
GRANT pg_read_all_stats TO payments_app;
