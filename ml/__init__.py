"""The sentiment model: tokens, training arithmetic, artifacts, inference, its service and its client."""
