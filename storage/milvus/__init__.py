"""`engine.ports.VectorIndex` over Milvus: a cluster, or Milvus Lite, with the same code."""
