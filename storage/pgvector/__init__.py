"""`engine.ports.VectorIndex` over the extension `vector` of Postgres; all SQL is in `sql/`, by name."""
