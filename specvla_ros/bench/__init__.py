"""`specvla bench`: where the milliseconds of an action go, and how far they are from what the machine can do."""
