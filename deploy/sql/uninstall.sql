-- Take back what install.sql made: index, configuration, role; zhparser too, unless it was there before. As the owner of
-- the cluster, on Immich's database. Immich's own tables and rows stay as they are.
BEGIN;

DROP INDEX IF EXISTS public.immich_triton_asset_ocr_words;
DROP SCHEMA IF EXISTS immich_triton CASCADE;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'immich_triton') THEN
        DROP OWNED BY immich_triton;  -- its grants in this database
        DROP ROLE immich_triton;
    END IF;
EXCEPTION WHEN dependent_objects_still_exist THEN
    -- The handler has taken back the statement above it too.
    DROP OWNED BY immich_triton;
    RAISE NOTICE 'the role immich_triton stays: it has grants in another database';
END
$$;

COMMIT;
