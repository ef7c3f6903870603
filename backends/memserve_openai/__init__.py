"""Everything that speaks OpenAI's dialect over HTTP."""
