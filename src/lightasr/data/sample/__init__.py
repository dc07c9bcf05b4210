"""The built-in corpus: a transport company's callers, synthesised, in LibriSpeech's form."""
