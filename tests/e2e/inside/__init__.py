"""Programs that run inside pods: their text is sent to a Python there."""
