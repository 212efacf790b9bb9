-- What search by text needs in Immich's database: a role that may read, and where zhparser is installed the text search
-- configuration "chinese" and an index. Run it as the owner of the cluster (in Immich's compose file: postgres), on
-- Immich's database, once Immich has made its tables. It may be run again at any time: after an update of Immich, after
-- zhparser was installed. README.md says more; uninstall.sql takes everything back.
BEGIN;

-- Everything of ours lies in a schema of its own; only the index has to lie beside its table.
CREATE SCHEMA IF NOT EXISTS immich_triton;
GRANT USAGE ON SCHEMA immich_triton TO PUBLIC;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'immich_triton') THEN
        -- Without a password it cannot log in from elsewhere: give it one with \password immich_triton.
        CREATE ROLE immich_triton LOGIN NOINHERIT CONNECTION LIMIT 16;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO immich_triton', current_database());
END
$$;
ALTER ROLE immich_triton SET default_transaction_read_only = on;
ALTER ROLE immich_triton SET statement_timeout = '60s';
GRANT USAGE ON SCHEMA public TO immich_triton;
GRANT SELECT ("assetId", text, "isVisible", x1, y1) ON public.asset_ocr TO immich_triton;
-- Whose a photo is, so that one's own come first. Nothing else of it.
GRANT SELECT (id, "ownerId") ON public.asset TO immich_triton;

DO $$
DECLARE
    parser text;
    mapped boolean;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'zhparser') THEN
        RAISE NOTICE 'zhparser is not installed on this server: search works without full-text search, see README.md';
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'zhparser') THEN
        CREATE EXTENSION zhparser SCHEMA immich_triton;
    END IF;
    SELECT format('%I.%I', nspname, prsname) INTO STRICT parser
    FROM pg_ts_parser JOIN pg_namespace ON pg_namespace.oid = prsnamespace WHERE prsname = 'zhparser';
    IF NOT EXISTS (
        SELECT FROM pg_ts_config WHERE cfgname = 'chinese' AND cfgnamespace = 'immich_triton'::regnamespace
    ) THEN
        EXECUTE 'CREATE TEXT SEARCH CONFIGURATION immich_triton.chinese (PARSER = ' || parser || ')';
        -- Every kind of token: who looks for a word of a menu means it, whatever part of speech it is.
        ALTER TEXT SEARCH CONFIGURATION immich_triton.chinese
            ADD MAPPING FOR a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z WITH simple;
    END IF;

    -- A line's words, the short ones in long ones, and each character by itself: so the index finds any sequence of them,
    -- and 牛奶 is a word of 纯牛奶. The settings
    -- stand here and not in the session: those of the index have to be the same in every session, Immich's included.
    -- A body that is parsed now works with any search_path, also that of pg_dump.
    CREATE OR REPLACE FUNCTION immich_triton.words(line text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE STRICT
    SET zhparser.multi_zall = on
    SET zhparser.multi_short = on
    SET zhparser.multi_duality = off
    SET zhparser.multi_zmain = off
    SET zhparser.seg_with_duality = off
    SET zhparser.punctuation_ignore = off
    RETURN to_tsvector('immich_triton.chinese'::regconfig, line);

    CREATE INDEX IF NOT EXISTS immich_triton_asset_ocr_words
        ON public.asset_ocr USING gin (immich_triton.words(text)) WHERE "isVisible";
END
$$;

COMMIT;
ANALYZE public.asset_ocr;
