"""What an answer says: as JSON, section by section, as a picture."""
