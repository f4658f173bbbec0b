-- The vector index in Postgres. Not one of the migrations that every database has: it needs the extension
-- `vector`, and is applied where the settings choose this index.
--
-- There is no index over the vectors, and none over the words: docs/adr/0021. What is asked is always one
-- store of one tenant, whose chunks are next to each other in the primary key.

CREATE EXTENSION IF NOT EXISTS vector;

-- Rows stay whole up to the size of a page: vectors of more than 500 numbers would else be read one by one
-- from elsewhere.
CREATE TABLE index_vectors (
    tenant     text     NOT NULL,
    store      text     NOT NULL,
    model      text     NOT NULL,   -- digest of the embedding model's name
    attachment text     NOT NULL,
    number     integer  NOT NULL,
    dimension  integer  NOT NULL,
    embedding  vector   NOT NULL,
    PRIMARY KEY (tenant, store, model, attachment, number)
) WITH (toast_tuple_target = 8160);

-- Beside the vectors and not among them: a search by vector reads no words, one by words no vectors.
CREATE TABLE index_words (
    tenant     text     NOT NULL,
    store      text     NOT NULL,
    model      text     NOT NULL,
    attachment text     NOT NULL,
    number     integer  NOT NULL,
    words      tsvector NOT NULL,   -- of words that `storage.words` made: digests and plain words
    PRIMARY KEY (tenant, store, model, attachment, number)
) WITH (toast_tuple_target = 8160);

-- What does not fit into a page is not compressed either: it is read in every search.
ALTER TABLE index_words ALTER COLUMN words SET STORAGE EXTERNAL;

GRANT SELECT, INSERT, UPDATE, DELETE ON index_vectors, index_words TO holdfast_app;

ALTER TABLE index_vectors ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE index_words ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY own_rows ON index_vectors
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON index_words
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));

-- The one thing that goes over all tenants: everything is removed, and nothing is told.
CREATE FUNCTION holdfast_clear_index() RETURNS void
LANGUAGE sql SECURITY DEFINER AS $$ TRUNCATE index_vectors, index_words $$;

DO $$
BEGIN
    EXECUTE format(
        'ALTER FUNCTION holdfast_clear_index() SET search_path = pg_catalog, %I, pg_temp', current_schema()
    );
    REVOKE ALL ON FUNCTION holdfast_clear_index() FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION holdfast_clear_index() TO holdfast_app;
END $$;
