"""Model files that the project builds itself, their manifest, and the scripts that build them."""
