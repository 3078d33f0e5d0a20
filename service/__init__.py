"""The HTTP server: image bytes in, labels out, from exported model files alone."""
