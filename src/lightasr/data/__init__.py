"""Archives, corpora, manifests, features and batches."""
