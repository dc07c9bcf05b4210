"""Using trained models: transcribing files, evaluating on one's own recordings."""
