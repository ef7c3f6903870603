"""One transport seam, server-sent events, retries and limits: what every HTTP room stands on."""
