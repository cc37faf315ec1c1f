"""What several acquisition methods share."""
