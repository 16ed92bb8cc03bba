"""`specvla report`: an evaluation as one page, with the same tables as CSV and Markdown beside it."""
