"""What every vector index does: pgvector, Milvus Lite, and the exact one that engine tests search in."""
