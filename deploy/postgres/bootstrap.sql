-- What the deployer makes before the first migration, as a superuser, inside the database that the services will use.
-- Safe to run again. Passwords are set by the deployer afterwards; until then nobody can sign in.
--
-- For each service a schema of its own, owned by a role that only migrations use, and a runtime role that owns nothing
-- and is bound by row-level security. What crosses tenants has a door of its own, which the runtime role may enter for
-- one transaction (SET LOCAL ROLE) and whose rights it does not have otherwise; migrations grant each door its tables.

SET client_min_messages = warning;

CREATE FUNCTION pg_temp.make_role(name text, options text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
        EXECUTE format('CREATE ROLE %I', name);
    END IF;
    EXECUTE format('ALTER ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS %s', name, options);
END $$;

CREATE FUNCTION pg_temp.make_service(service text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    owner text := service || '_owner';
BEGIN
    PERFORM pg_temp.make_role(owner, 'LOGIN');
    PERFORM pg_temp.make_role(service, 'LOGIN');
    EXECUTE format('ALTER ROLE %I SET search_path = %I', owner, service);
    EXECUTE format('ALTER ROLE %I SET search_path = %I', service, service);
    EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I', service, owner);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', service, service);
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I, %I', current_database(), owner, service);
END $$;

CREATE FUNCTION pg_temp.make_door(door text, service text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_temp.make_role(door, 'NOLOGIN');
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', service, door);
    EXECUTE format('GRANT %I TO %I WITH INHERIT FALSE, SET TRUE', door, service);
END $$;

DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
END $$;
REVOKE ALL ON SCHEMA public FROM PUBLIC;

SELECT pg_temp.make_service('auth');
SELECT pg_temp.make_service('config');
SELECT pg_temp.make_service('codegen');
SELECT pg_temp.make_service('ingest');

SELECT pg_temp.make_door('auth_feed', 'auth');
SELECT pg_temp.make_door('auth_cleaner', 'auth');
SELECT pg_temp.make_door('auth_mailer', 'auth');
SELECT pg_temp.make_door('auth_auditor', 'auth');
SELECT pg_temp.make_door('auth_key_usage', 'auth');
SELECT pg_temp.make_door('auth_operator', 'auth');
SELECT pg_temp.make_door('config_feed', 'config');
SELECT pg_temp.make_door('config_audit_sender', 'config');
SELECT pg_temp.make_door('codegen_cleaner', 'codegen');
SELECT pg_temp.make_door('ingest_aggregator', 'ingest');

-- Shortens the audit log: for a command of the owner, and not for the service.
SELECT pg_temp.make_role('auth_audit_pruner', 'NOLOGIN');
GRANT USAGE ON SCHEMA auth TO auth_audit_pruner;
GRANT auth_audit_pruner TO auth_owner WITH INHERIT FALSE, SET TRUE;

-- The aggregator copies what changed into temporary tables and merges from there.
DO $$
BEGIN
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO ingest_aggregator', current_database());
END $$;
