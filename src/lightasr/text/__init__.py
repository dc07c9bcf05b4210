"""Text: normalisation, transcripts and tokenizers."""
