"""Speech to text engines."""
