"""What turns text into vectors: a server with OpenAI's `/v1/embeddings`, or a small model in the worker."""
