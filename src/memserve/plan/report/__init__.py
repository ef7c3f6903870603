"""How an answer is told: as JSON, as a page, as a picture."""
