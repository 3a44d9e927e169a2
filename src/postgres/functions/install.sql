-- Functions of the DSV operator, version 1. A superuser runs this once, in the database that the base secret names; to run
-- it again changes nothing.
--
-- From PostgreSQL 16 on every account that a login without superuser rights makes becomes a membership of that login, and
-- making or dropping the next one walks all of them. What these functions make is a membership of nobody but its group.
--
-- Who may call them can do nothing with them that CREATEROLE would not let him do with accounts of his own:
-- * create_account puts accounts only into groups that the caller administers, and makes nothing but accounts: LOGIN, no
--   attributes, a SCRAM verifier, an end, the operator's kind of name and comment.
-- * The others touch only such accounts, and of these only the caller's: those that he administers, and those that a
--   superuser, which is what these functions run as, put into a group that he administers. He cannot forge the latter: a
--   membership that he grants names him as its grantor, and that of a role's creator is with ADMIN OPTION.
-- The caller is session_user: current_user is the functions' owner here.
--
-- There is no backslash in these texts, since the caller decides what one means (standard_conforming_strings).
BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;
-- Not inside of the DO below: a name may hold whatever ends its quotes.
SELECT set_config('dsv.database', @database@, true) AS "database", set_config('dsv.login', @login_text@, true) AS "login";

DO $dsv$
BEGIN
  IF NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user) THEN
    RAISE EXCEPTION 'only a superuser can install these functions; % is none', current_user;
  END IF;
  IF current_database() <> current_setting('dsv.database') THEN
    RAISE EXCEPTION 'this is database %; login % makes its accounts in database %, so connect to that one',
      current_database(), current_setting('dsv.login'), current_setting('dsv.database');
  END IF;
  -- CREATE OR REPLACE leaves an owner as he is, and an owner can change what he owns.
  IF EXISTS (SELECT FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner WHERE n.nspname = 'dsv' AND NOT o.rolsuper)
    OR EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles o ON o.oid = p.proowner
      WHERE n.nspname = 'dsv' AND NOT o.rolsuper)
  THEN
    RAISE EXCEPTION 'schema dsv, or a function in it, belongs to somebody who is no superuser; look at it, and drop it';
  END IF;
END
$dsv$;

CREATE SCHEMA IF NOT EXISTS dsv;
REVOKE ALL ON SCHEMA dsv FROM PUBLIC;

-- Raises unless the caller may make roles at all.
CREATE OR REPLACE FUNCTION dsv.check_caller() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $dsv$
BEGIN
  IF current_setting('server_version_num')::integer < 160000 THEN
    RAISE EXCEPTION 'the functions of the DSV operator serve PostgreSQL 16 and newer' USING ERRCODE = 'feature_not_supported';
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = session_user AND (r.rolcreaterole OR r.rolsuper)) THEN
    RAISE EXCEPTION 'login % may not make roles', session_user USING ERRCODE = 'insufficient_privilege';
  END IF;
END
$dsv$;

-- The names of these roles as SQL, if each is an account of the caller's with exactly this comment. Raises otherwise. Names
-- are not judged: an account that was renamed by hand is taken back too.
CREATE OR REPLACE FUNCTION dsv.accounts_of_caller(accounts oid[], comments text[]) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $dsv$
DECLARE
  names text;
  others text;
BEGIN
  PERFORM dsv.check_caller();
  SELECT string_agg(quote_ident(r.rolname), ', '),
    string_agg(coalesce(a.account::text, 'NULL'), ', ') FILTER (WHERE (
      a.comment LIKE 'dsv/1 kind=lease %'
      AND shobj_description(r.oid, 'pg_authid') = a.comment
      AND NOT (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls)
      AND (
        EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid AND m.grantor = 10 AND NOT m.admin_option
          AND pg_has_role(session_user, m.roleid, 'MEMBER WITH ADMIN OPTION'))
        OR pg_has_role(session_user, r.oid, 'MEMBER WITH ADMIN OPTION')
      )
    ) IS NOT TRUE)
    INTO names, others
    FROM unnest(accounts, comments) AS a(account, comment) LEFT JOIN pg_roles r ON r.oid = a.account;
  IF others IS NOT NULL OR names IS NULL THEN
    RAISE EXCEPTION 'roles with these OIDs are no accounts of login %: %', session_user, coalesce(others, 'none')
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN names;
END
$dsv$;

-- Makes an account, the same as CREATE ROLE by the login itself.
CREATE OR REPLACE FUNCTION dsv.create_account(account text, verifier text, valid_until timestamptz, connection_limit integer,
  group_role text, signed_comment text, statement_timeout_ms bigint, idle_in_transaction_timeout_ms bigint, schemas text[])
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $dsv$
DECLARE
  fits boolean;
BEGIN
  PERFORM dsv.check_caller();
  -- A longer name would be cut, and the account be another one.
  IF (account ~ '_[a-z2-7]{26}$' AND octet_length(account) <= 63) IS NOT TRUE THEN
    RAISE EXCEPTION 'the name of an account ends with the UID of its lease, and has 63 bytes at most'
      USING ERRCODE = 'invalid_name';
  END IF;
  -- Whatever is not exactly a verifier is a password in plain text. It is not repeated in a message.
  IF (verifier ~ '@verifier@') IS NOT TRUE
  THEN
    RAISE EXCEPTION 'the verifier of account % is none', account USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF (signed_comment LIKE 'dsv/1 kind=lease %' AND valid_until IS NOT NULL) IS NOT TRUE THEN
    RAISE EXCEPTION 'account % has no comment of ours, or no end', account USING ERRCODE = 'invalid_parameter_value';
  END IF;
  SELECT shobj_description(g.oid, 'pg_authid') LIKE 'dsv/1 %'
    AND NOT (g.rolcanlogin OR g.rolsuper OR g.rolcreaterole OR g.rolcreatedb OR g.rolreplication OR g.rolbypassrls)
    AND NOT starts_with(g.rolname, 'pg_')
    AND pg_has_role(session_user, g.oid, 'MEMBER WITH ADMIN OPTION')
    INTO fits FROM pg_roles g WHERE g.rolname = group_role;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'role % does not exist', quote_ident(group_role) USING ERRCODE = 'undefined_object';
  END IF;
  IF fits IS NOT TRUE THEN
    RAISE EXCEPTION 'role % is no group role that login % administers', quote_ident(group_role), session_user
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT '
    'PASSWORD %L VALID UNTIL %L CONNECTION LIMIT %s', account, verifier, valid_until, coalesce(connection_limit, -1));
  -- A member that could become the group would leave objects that outlive the account.
  EXECUTE format('GRANT %I TO %I WITH INHERIT TRUE, SET FALSE', group_role, account);
  EXECUTE format('COMMENT ON ROLE %I IS %L', account, signed_comment);
  IF statement_timeout_ms IS NOT NULL THEN
    EXECUTE format('ALTER ROLE %I SET statement_timeout = %s', account, statement_timeout_ms);
  END IF;
  IF idle_in_transaction_timeout_ms IS NOT NULL THEN
    EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %s', account, idle_in_transaction_timeout_ms);
  END IF;
  IF cardinality(schemas) > 0 THEN
    EXECUTE format('ALTER ROLE %I SET search_path = %s', account,
      (SELECT string_agg(quote_ident(s.name), ', ' ORDER BY s.place) FROM unnest(schemas) WITH ORDINALITY AS s(name, place)));
  END IF;
END
$dsv$;

-- Drops accounts of the caller. What depends on one is said by the server as ever.
CREATE OR REPLACE FUNCTION dsv.drop_accounts(accounts oid[], comments text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $dsv$
BEGIN
  EXECUTE 'DROP ROLE ' || dsv.accounts_of_caller(accounts, comments);
END
$dsv$;

-- Makes the caller the administrator of accounts of his, as he would be had he made them by himself. Those that own
-- something are taken back so: locked, emptied, dropped.
CREATE OR REPLACE FUNCTION dsv.administer(accounts oid[], comments text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $dsv$
BEGIN
  EXECUTE format('GRANT %s TO %I WITH ADMIN TRUE, INHERIT FALSE, SET FALSE',
    dsv.accounts_of_caller(accounts, comments), session_user);
END
$dsv$;

-- Takes accounts of the caller out of the groups that create_account put them into: he cannot, since he did not grant it.
CREATE OR REPLACE FUNCTION dsv.leave_groups(accounts oid[], comments text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $dsv$
DECLARE
  membership record;
BEGIN
  -- First, or nothing would tell any more that they are his.
  PERFORM dsv.administer(accounts, comments);
  FOR membership IN
    SELECT g.rolname AS group_role, r.rolname AS account FROM pg_auth_members m
      JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member
      WHERE m.member = ANY (accounts) AND m.grantor = 10 AND NOT m.admin_option
      AND pg_has_role(session_user, m.roleid, 'MEMBER WITH ADMIN OPTION')
  LOOP
    EXECUTE format('REVOKE %I FROM %I', membership.group_role, membership.account);
  END LOOP;
END
$dsv$;

-- By this the engine knows that they are there and are these.
COMMENT ON FUNCTION dsv.create_account(text, text, timestamptz, integer, text, text, bigint, bigint, text[]) IS '@marker@';
COMMENT ON FUNCTION dsv.drop_accounts(oid[], text[]) IS '@marker@';
COMMENT ON FUNCTION dsv.administer(oid[], text[]) IS '@marker@';
COMMENT ON FUNCTION dsv.leave_groups(oid[], text[]) IS '@marker@';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA dsv FROM PUBLIC;
GRANT USAGE ON SCHEMA dsv TO @login@;
GRANT EXECUTE ON FUNCTION dsv.create_account(text, text, timestamptz, integer, text, text, bigint, bigint, text[]),
  dsv.drop_accounts(oid[], text[]), dsv.administer(oid[], text[]), dsv.leave_groups(oid[], text[]) TO @login@;
COMMIT;
