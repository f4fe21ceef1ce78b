"""The model plane: speech recognition, language models and speech synthesis as Ray Serve applications."""
