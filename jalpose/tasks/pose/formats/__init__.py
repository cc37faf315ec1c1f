"""People's annotation files, a module a format: read to and written from `Poses`."""
